"""Gaussian noise, one strength per sample or per channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunetv2_slicemamba.augmentation.batch import (
    Arrays,
    Batch,
    Bools,
    FixedTwin,
    Normals,
    Rows,
    Shape,
    Tensors,
    column,
    draw_rows,
    planes_of,
)
from nnunetv2_slicemamba.augmentation.scalars import Scalar


@dataclass(frozen=True)
class DrawnNoise:
    """rows: planes and their standard deviations. seed: of the noise itself, which is drawn on the device."""

    rows: Rows
    seed: int


@dataclass(frozen=True)
class GaussianNoise(FixedTwin):
    """Adds noise to each channel with probability `p_channel`.

    deviation: standard deviation, which nnU-Net calls a variance. synchronised: the channels of a sample share it.
    """

    deviation: Scalar
    p_channel: float
    synchronised: bool

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator, chosen: Bools) -> DrawnNoise:
        rows = draw_rows(rng, chosen, shape[1], self.p_channel, self.deviation, self.synchronised)
        return DrawnNoise(rows, int(rng.integers(2**62)))

    def arrays(self, shape: Shape, drawn: DrawnNoise) -> Arrays:
        return {
            "deviations": drawn.rows.over(shape[0] * shape[1], others=0),
            "noise": Normals(drawn.seed, (shape[0] * shape[1], *shape[2:])),
        }

    def change(self, batch: Batch, given: Tensors) -> Batch:
        x = planes_of(batch)
        x.addcmul_(given["noise"], column(given["deviations"], x))
        return batch
