"""Brightness as a factor, and contrast around the mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from nnunetv2_slicemamba.augmentation.batch import (
    Arrays,
    Batch,
    Bools,
    FixedTwin,
    Rows,
    Shape,
    Tensors,
    chosen_rows,
    column,
    draw_rows,
    planes_of,
)
from nnunetv2_slicemamba.augmentation.scalars import Scalar


@dataclass(frozen=True)
class Brightness(FixedTwin):
    """Multiplies each channel, with probability `p_channel`, by a factor."""

    factor: Scalar
    p_channel: float
    synchronised: bool

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator, chosen: Bools) -> Rows:
        return draw_rows(rng, chosen, shape[1], self.p_channel, self.factor, self.synchronised)

    def arrays(self, shape: Shape, drawn: Rows) -> Arrays:
        return {"factors": drawn.over(shape[0] * shape[1], others=1)}

    def change(self, batch: Batch, given: Tensors) -> Batch:
        x = planes_of(batch)
        x.mul_(column(given["factors"], x))
        return batch


@dataclass(frozen=True)
class Contrast(FixedTwin):
    """Stretches each channel, with probability `p_channel`, around its mean by a factor.

    keep_range: what leaves the channel's range is clipped to it.
    """

    factor: Scalar
    p_channel: float
    synchronised: bool
    keep_range: bool

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator, chosen: Bools) -> Rows:
        return draw_rows(rng, chosen, shape[1], self.p_channel, self.factor, self.synchronised)

    def arrays(self, shape: Shape, drawn: Rows) -> Arrays:
        count = shape[0] * shape[1]
        return {"changed": chosen_rows(drawn.planes, count), "factors": drawn.over(count, others=1)}

    def change(self, batch: Batch, given: Tensors) -> Batch:
        x = planes_of(batch).flatten(1)
        mean, factor = x.mean(1, keepdim=True), column(given["factors"], x)
        stretched = torch.addcmul(mean - mean * factor, x, factor)
        if self.keep_range:
            stretched.clamp_(*x.aminmax(dim=1, keepdim=True))
        return Batch(stretched.where(column(given["changed"], x), x).view(batch.shape), batch.seg)
