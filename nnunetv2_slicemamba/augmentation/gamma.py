"""Gamma correction of a channel's range, of the image or of its negative."""

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
        x = before.flatten(1)
        sign, exponents = column(given["signs"], x), column(given["exponents"], x)
        low, high = x.aminmax(dim=1, keepdim=True)
        origin, extent = low.where(sign > 0, high), high - low
        power = (x - origin).mul_(sign / extent.clamp(min=SMALLEST)).pow_(exponents)
        # all that follows is a factor and a shift of each plane
        factor, shift = sign * extent, origin
        if self.p_keep_statistics:
            deviation, mean = torch.std_mean(x, 1, keepdim=True)
            deviation_now, mean_now = torch.std_mean(power, 1, keepdim=True)
            kept = factor * deviation / (extent * deviation_now).clamp(min=SMALLEST)
            keeps = column(given["keeps"], x)
            factor, shift = kept.where(keeps, factor), (mean - kept * mean_now).where(keeps, shift)
        changed = torch.addcmul(shift, power, factor).where(column(given["changed"], x), x)
        return Batch(changed.view(batch.shape), batch.seg)
