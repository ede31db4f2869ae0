"""Brightness as a factor, and contrast around the mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from nnunetv2_slicemamba.augmentation.batch import Batch, Bools, Rows, change_planes, column, draw_rows
from nnunetv2_slicemamba.augmentation.scalars import Scalar


@dataclass(frozen=True)
class Brightness:
    """Multiplies each channel, with probability `p_channel`, by a factor."""

    factor: Scalar
    p_channel: float
    synchronised: bool

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator, chosen: Bools) -> Rows:
        return draw_rows(rng, chosen, shape[1], self.p_channel, self.factor, self.synchronised)

    def apply(self, batch: Batch, drawn: Rows) -> Batch:
        return change_planes(batch, drawn.planes, lambda x: x.mul_(column(drawn.values, batch.data)))


@dataclass(frozen=True)
class Contrast:
    """Stretches each channel, with probability `p_channel`, around its mean by a factor.

    keep_range: what leaves the channel's range is clipped to it.
    """

    factor: Scalar
    p_channel: float
    synchronised: bool
    keep_range: bool

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator, chosen: Bools) -> Rows:
        return draw_rows(rng, chosen, shape[1], self.p_channel, self.factor, self.synchronised)

    def apply(self, batch: Batch, drawn: Rows) -> Batch:
        def stretch(x: Tensor) -> Tensor:
            axes = tuple(range(1, x.ndim))
            mean = x.mean(axes, keepdim=True)
            low, high = x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)
            x.sub_(mean).mul_(column(drawn.values, batch.data)).add_(mean)
            return x.clamp_(low, high) if self.keep_range else x

        return change_planes(batch, drawn.planes, stretch)
