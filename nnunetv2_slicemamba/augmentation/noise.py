"""Gaussian noise, one strength per sample or per channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunetv2_slicemamba.augmentation.batch import Batch, Bools, Rows, change_planes, column, draw_rows
from nnunetv2_slicemamba.augmentation.scalars import Scalar


@dataclass(frozen=True)
class DrawnNoise:
    """rows: planes and their standard deviations. seed: of the noise itself, which is drawn on the device."""

    rows: Rows
    seed: int


@dataclass(frozen=True)
class GaussianNoise:
    """Adds noise to each channel with probability `p_channel`.

    deviation: standard deviation, which nnU-Net calls a variance. synchronised: the channels of a sample share it.
    """

    deviation: Scalar
    p_channel: float
    synchronised: bool

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator, chosen: Bools) -> DrawnNoise:
        rows = draw_rows(rng, chosen, shape[1], self.p_channel, self.deviation, self.synchronised)
        return DrawnNoise(rows, int(rng.integers(2**62)))

    def apply(self, batch: Batch, drawn: DrawnNoise) -> Batch:
        def add(x: Tensor) -> Tensor:
            generator = torch.Generator(x.device).manual_seed(drawn.seed)
            noise = torch.randn(x.shape, generator=generator, device=x.device)
            return x.add_(noise.mul_(column(drawn.rows.values, batch.data)))

        return change_planes(batch, drawn.rows.planes, add)
