"""Patches of nnU-Net's choice, read straight into memory that processes share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from numpy.typing import NDArray
from torch import Tensor

from nnunetv2_slicemamba.augmentation.cases import Case

Array = NDArray[Any]
MOST_BYTES = 2**31  # of a loader's slots; nnU-Net's queues hold about as much
FEWEST = 2  # slots: one is read into, one is copied from
OUTSIDE_IMAGE, OUTSIDE_SEG = 0, -1  # of what a patch shows beyond its case, as in nnU-Net's loader


@dataclass(frozen=True)
class Slot:
    """Shared memory for one batch. data: (B, C, *patch) float32. seg: (B, S, *patch) int16, the second channel is a
    first stage's prediction. draws: bytes, what augmentation draws for it, where that is drawn ahead."""

    data: Tensor
    seg: Tensor
    draws: Tensor | None = None

    @property
    def tensors(self) -> list[Tensor]:
        return [self.data, self.seg, *([] if self.draws is None else [self.draws])]


def is_plain(loader: Any) -> bool:
    """True if a loader makes its batches as nnU-Net's own does."""
    return (
        isinstance(loader, nnUNetDataLoader)
        and type(loader).generate_train_batch is nnUNetDataLoader.generate_train_batch
    )


def make_slots(loader: nnUNetDataLoader, count: int) -> list[Slot]:
    """Shared memory for `count` of the loader's batches, fewer if they would take more than MOST_BYTES."""
    data, seg, previous, _ = loader._data.load_case(loader.indices[0])
    patch = loader.patch_size[1:] if loader.patch_size_was_2d else loader.patch_size
    size = tuple(map(int, patch))
    stages = seg.shape[0] + (previous is not None)
    voxels = loader.batch_size * math.prod(size)
    affordable = MOST_BYTES // (voxels * (4 * data.shape[0] + 2 * stages))
    return [
        Slot(
            torch.empty((loader.batch_size, data.shape[0], *size), dtype=torch.float32).share_memory_(),
            torch.empty((loader.batch_size, stages, *size), dtype=torch.int16).share_memory_(),
        )
        for _ in range(min(count, max(FEWEST, affordable)))
    ]


def fill(
    slot: Slot, loader: nnUNetDataLoader, labels: Sequence[int], kept: Mapping[str, Case] | None = None
) -> list[str]:
    """Reads a batch into a slot; the names of its cases.

    Which cases and where, nnU-Net's loader draws. kept: cases that need not be loaded. ValueError for labels that are
    not among `labels`.
    """
    kept = kept or {}
    # a plane of one voxel along the first axis holds what is 2D
    data, seg = (t.unsqueeze(2) if loader.patch_size_was_2d else t for t in (slot.data, slot.seg))
    images, segs = data.numpy(), seg.numpy()
    cases = [str(case) for case in loader.get_indices()]
    for i, case in enumerate(cases):
        forced = loader.get_do_oversample(i)
        image, labelled, previous, properties = kept.get(case) or loader._data.load_case(case)
        corner, _ = loader.get_bbox(image.shape[1:], forced, properties["class_locations"])
        paste(images[i], image, corner, OUTSIDE_IMAGE)
        paste(segs[i, : labelled.shape[0]], labelled, corner, OUTSIDE_SEG)
        if previous is not None:
            paste(segs[i, labelled.shape[0] :], previous[None], corner, OUTSIDE_SEG)
    low, high = map(int, slot.seg.aminmax())
    if low < min(labels) or high > max(labels):
        raise ValueError(
            f"the segmentations of {', '.join(sorted(set(cases)))} hold labels from {low} to {high}, dataset.json only "
            f"those from {min(labels)} to {max(labels)}: correct one of them and preprocess again"
        )
    return cases


def paste(target: Array, source: Any, corner: Sequence[int], outside: float) -> None:
    """Writes source (C, *spatial) from `corner` on into target (C, *patch), `outside` where it ends.

    source: an array, or a compressed one of which only what is needed is read.
    """
    inside, read = [slice(None)], [slice(None)]
    for start, size, whole in zip(map(int, corner), target.shape[1:], source.shape[1:], strict=True):
        first, last = max(0, start), max(0, min(start + size, whole))
        read.append(slice(first, last))
        inside.append(slice(first - start, last - start))
    if any(part.stop - part.start < size for part, size in zip(inside[1:], target.shape[1:], strict=True)):
        target[...] = outside
    target[tuple(inside)] = np.asarray(source[tuple(read)])
