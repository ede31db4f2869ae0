"""Windows of a case that are predicted, and the batches that they make up.

nnU-Net's sliding window: images smaller than the patch are padded to it, larger ones are cut into patches that overlap,
whose logits are added up with a Gaussian weight. A case that fits into one window needs none of that.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Case:
    """A preprocessed case as it is predicted.

    data: (channels, *spatial), padded. truth: (*spatial) of the unpadded image, integer labels. crop: where the
    unpadded image lies. windows: where the patches lie in data; an int picks a slice of a 3D image for a 2D network.
    """

    data: Tensor
    truth: Tensor
    crop: tuple[slice, ...]
    windows: tuple[tuple[slice | int, ...], ...]

    def patch(self, window: tuple[slice | int, ...]) -> Tensor:
        """(channels, *patch)."""
        place = (slice(None), *window)
        return self.data[place]


@dataclass(frozen=True)
class Batch:
    """Windows that are predicted together: (case number, its window number) each, in the order of the cases.

    whole: every case in it has just this window, and all have the same crop, so that they are judged together.
    """

    windows: tuple[tuple[int, int], ...]
    whole: bool


def make_case(data: Tensor, truth: NDArray[np.integer], patch: Sequence[int], step: float) -> Case:
    """Pads a case to the patch as nnU-Net does, and places the windows.

    data: (channels, *spatial). truth: (1, *spatial). patch: patch size, one axis less than the image for a 2D network
    on 3D data. step: distance of the windows as a part of the patch.
    """
    from acvl_utils.cropping_and_padding.padding import pad_nd_image
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    padded, crop = pad_nd_image(data, tuple(patch), "constant", {"value": 0}, True, None)
    sizes = tuple(padded.shape[1:])
    leading = len(sizes) - len(patch)
    steps = compute_steps_for_sliding_window(sizes[leading:], tuple(patch), step)
    places = [range(size) for size in sizes[:leading]] + steps
    lengths = (None,) * leading + tuple(patch)
    windows = tuple(
        tuple(at if length is None else slice(at, at + length) for at, length in zip(corner, lengths, strict=True))
        for corner in itertools.product(*places)
    )
    return Case(padded, torch.from_numpy(np.ascontiguousarray(truth[0])), tuple(crop[1:]), windows)


def make_batches(cases: Sequence[Case], size: int) -> list[Batch]:
    """At most `size` windows each: first the cases of one window, those alike together, then the others' windows."""
    alike: dict[tuple, list[tuple[int, int]]] = {}
    rest: list[tuple[int, int]] = []
    for number, case in enumerate(cases):
        if len(case.windows) == 1:
            key = tuple((part.start, part.stop) for part in case.crop)
            alike.setdefault((key, tuple(case.truth.shape)), []).append((number, 0))
        else:
            rest.extend((number, window) for window in range(len(case.windows)))
    groups = [(windows, True) for windows in alike.values()] + [(rest, False)]
    return [Batch(tuple(part), whole) for windows, whole in groups for part in _parts(windows, size)]


def _parts(windows: list[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    for start in range(0, len(windows), size):
        yield windows[start : start + size]


def stack(cases: Sequence[Case], batch: Batch, device: torch.device, total_stride: Sequence[int]) -> Tensor:
    """(B, channels, *spatial) of a batch's windows on the device, padded at the end to the network's total stride."""
    patches = [cases[case].patch(cases[case].windows[window]) for case, window in batch.windows]
    data = torch.stack(patches).to(device, non_blocking=True)
    missing = [-size % step for size, step in zip(data.shape[2:], total_stride, strict=True)]
    return F.pad(data, [amount for axis in reversed(missing) for amount in (0, axis)]) if any(missing) else data
