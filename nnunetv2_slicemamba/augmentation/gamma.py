"""Gamma correction of a channel's range, of the image or of its negative."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from nnunetv2_slicemamba.augmentation.batch import Batch, Bools, Rows, change_planes, column, draw_planes, on_device
from nnunetv2_slicemamba.augmentation.scalars import Scalar

SMALLEST = 1e-7  # of a range or deviation that is divided by, as in batchgeneratorsv2


@dataclass(frozen=True)
class DrawnGamma:
    """rows: planes and their exponents. inverted, keeps: (n,), the planes whose negative is taken, and those that get
    their mean and standard deviation back."""

    rows: Rows
    inverted: Bools
    keeps: Bools


@dataclass(frozen=True)
class Gamma:
    """x -> x ** exponent within each channel's range, with probability `p_channel`."""

    exponent: Scalar
    p_channel: float
    synchronised: bool
    p_invert: float
    p_keep_statistics: float

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator, chosen: Bools) -> DrawnGamma:
        planes = draw_planes(rng, chosen, shape[1], self.p_channel)
        keeps = rng.random(len(planes)) < self.p_keep_statistics
        inverted = rng.random(len(planes)) < self.p_invert
        if self.synchronised:
            exponents = self.exponent.draw(rng, (len(chosen),))[planes // shape[1]]
        else:
            exponents = self.exponent.draw(rng, (len(planes),))
        return DrawnGamma(Rows(planes, exponents), inverted, keeps)

    def apply(self, batch: Batch, drawn: DrawnGamma) -> Batch:
        def correct(x: Tensor) -> Tensor:
            axes = tuple(range(1, x.ndim))
            sign = column(np.where(drawn.inverted, -1.0, 1.0), batch.data) if drawn.inverted.any() else None
            if sign is not None:
                x.mul_(sign)
            before = _statistics(x) if drawn.keeps.any() else None
            low = x.amin(axes, keepdim=True)
            extent = x.amax(axes, keepdim=True) - low
            x.sub_(low).div_(extent.clamp(min=SMALLEST)).pow_(column(drawn.rows.values, batch.data))
            x.mul_(extent).add_(low)
            if before is not None:
                x = _with_statistics(x, before, drawn.keeps)
            return x if sign is None else x.mul_(sign)

        return change_planes(batch, drawn.rows.planes, correct)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    axes = tuple(range(1, x.ndim))
    return x.mean(axes, keepdim=True), x.std(axes, keepdim=True)


def _with_statistics(x: Tensor, wanted: tuple[Tensor, Tensor], keeps: Bools) -> Tensor:
    mean, deviation = _statistics(x)
    restored = (x - mean).mul_(wanted[1] / deviation.clamp(min=SMALLEST)).add_(wanted[0])
    if keeps.all():
        return restored
    return restored.where(on_device(keeps, x, dtype=x.dtype).view(-1, *(1,) * (x.ndim - 1)) > 0, x)
