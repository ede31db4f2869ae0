"""Gamma correction of a channel's range, of the image or of its negative."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

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
    draw_planes,
    planes_of,
)
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
class Gamma(FixedTwin):
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

    def arrays(self, shape: Shape, drawn: DrawnGamma) -> Arrays:
        count, planes = shape[0] * shape[1], drawn.rows.planes
        signs = Rows(planes, np.where(drawn.inverted, -1.0, 1.0))
        return {
            "changed": chosen_rows(planes, count),
            "exponents": drawn.rows.over(count, others=1),
            "signs": signs.over(count, others=1),
            "keeps": chosen_rows(planes, count, drawn.keeps),
        }

    def change(self, batch: Batch, given: Tensors) -> Batch:
        before = planes_of(batch)
        sign = column(given["signs"], before) if self.p_invert else None
        x = before.clone() if sign is None else before * sign
        axes = tuple(range(1, x.ndim))
        wanted = _statistics(x) if self.p_keep_statistics else None
        low = x.amin(axes, keepdim=True)
        extent = x.amax(axes, keepdim=True) - low
        x.sub_(low).div_(extent.clamp(min=SMALLEST)).pow_(column(given["exponents"], x)).mul_(extent).add_(low)
        if wanted is not None:
            x = _with_statistics(x, wanted).where(column(given["keeps"], x), x)
        if sign is not None:
            x.mul_(sign)
        return Batch(x.where(column(given["changed"], x), before).view(batch.shape), batch.seg)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    axes = tuple(range(1, x.ndim))
    return x.mean(axes, keepdim=True), x.std(axes, keepdim=True)


def _with_statistics(x: Tensor, wanted: tuple[Tensor, Tensor]) -> Tensor:
    mean, deviation = _statistics(x)
    return (x - mean).mul_(wanted[1] / deviation.clamp(min=SMALLEST)).add_(wanted[0])
