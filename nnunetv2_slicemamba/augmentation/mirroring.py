"""Mirroring of images and segmentations along axes drawn per sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunetv2_slicemamba.augmentation.batch import Batch, Bools, Ints, on_device


@dataclass(frozen=True)
class Mirror:
    """Mirrors each sample along each of `axes` (0 is the first spatial one) with probability one half."""

    axes: tuple[int, ...]

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator, chosen: Bools) -> Bools:
        """(B, len(axes)): the mirrored ones."""
        return chosen[:, None] & (rng.random((len(chosen), len(self.axes))) < 0.5)

    def apply(self, batch: Batch, drawn: Bools) -> Batch:
        for axis, mirrored in zip(self.axes, drawn.T, strict=True):
            samples = np.flatnonzero(mirrored)
            if len(samples):
                _flip(batch.data, samples, axis + 2)
                _flip(batch.seg, samples, axis + 2)
        return batch


def _flip(x: Tensor, samples: Ints, axis: int) -> None:
    index = on_device(samples, x, torch.int64)
    x.index_copy_(0, index, x.index_select(0, index).flip(axis))
