"""Targets for deep supervision: the segmentation at every output's resolution, by the nearest voxel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from nnunetv2_slicemamba.augmentation.batch import Batch, Tensors
from nnunetv2_slicemamba.augmentation.labels import Unchanging
from nnunetv2_slicemamba.augmentation.resampling_index import nearest_exact


@dataclass(frozen=True)
class DeepSupervision(Unchanging):
    """Turns the segmentation into a list; scales: new voxels per old one and axis, for each of its elements."""

    scales: tuple[tuple[float, ...], ...]

    def change(self, batch: Batch, given: Tensors) -> Batch:
        return Batch(batch.data, [_downsampled(batch.seg, scale) for scale in self.scales])


def _downsampled(seg: Tensor, scale: tuple[float, ...]) -> Tensor:
    for axis, factor in enumerate(scale, start=2):
        size = seg.shape[axis]
        if round(size * factor) != size:
            seg = seg.index_select(axis, _positions(size, round(size * factor), seg.device))
    return seg


@lru_cache(maxsize=256)
def _positions(source: int, size: int, device: torch.device) -> Tensor:
    return torch.from_numpy(nearest_exact(np.arange(size), np.array([size]), source)).to(device)
