"""Mirroring of images and segmentations along axes drawn per sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunetv2_slicemamba.augmentation.batch import Arrays, Batch, Bools, FixedTwin, Shape, Tensors


@dataclass(frozen=True)
class Mirror(FixedTwin):
    """Mirrors each sample along each of `axes` (0 is the first spatial one) with probability one half."""

    axes: tuple[int, ...]

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator, chosen: Bools) -> Bools:
        """(B, len(axes)): the mirrored ones."""
        return chosen[:, None] & (rng.random((len(chosen), len(self.axes))) < 0.5)

    def arrays(self, shape: Shape, drawn: Bools) -> Arrays:
        return {"mirrored": drawn}

    def change(self, batch: Batch, given: Tensors) -> Batch:
        data, seg = batch.data, batch.seg
        for i, axis in enumerate(self.axes):
            mirrored = given["mirrored"][:, i].view(-1, *(1,) * (data.ndim - 1))
            data, seg = (x.flip(axis + 2).where(mirrored, x) for x in (data, seg))
        return Batch(data, seg)
