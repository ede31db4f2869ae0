"""Low resolution simulated: down by the nearest neighbour, up again linearly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from nnunetv2_slicemamba.augmentation.batch import (
    Arrays,
    Batch,
    Bools,
    FixedTwin,
    Ints,
    Rows,
    Shape,
    Tensors,
    draw_rows,
    planes_of,
)
from nnunetv2_slicemamba.augmentation.resampling_index import linear, nearest_exact
from nnunetv2_slicemamba.augmentation.scalars import Floats, Scalar


@dataclass(frozen=True)
class LowResolution(FixedTwin):
    """Coarsens each channel with probability `p_channel`.

    scale: new voxels per old one. synchronised: the channels of a sample share it; same_axes: the axes do. kept_axes
    stay as they are. channels: the only ones that may be changed, None for all.
    """

    scale: Scalar
    p_channel: float
    synchronised: bool
    same_axes: bool
    kept_axes: tuple[int, ...]
    channels: tuple[int, ...] | None

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator, chosen: Bools) -> Rows:
        """Scales (n, axes), rounded to single precision."""
        n_channels, axes = shape[1], len(shape) - 2
        drawn = (1 if self.same_axes else axes,)
        rows = draw_rows(rng, chosen, n_channels, self.p_channel, self.scale, self.synchronised, drawn)
        if self.channels is not None:
            allowed = np.isin(rows.planes % n_channels, self.channels)
            rows = Rows(rows.planes[allowed], rows.values[allowed])
        scales = np.broadcast_to(rows.values, (len(rows.planes), axes)).astype(np.float32).astype(np.float64)
        scales[:, list(self.kept_axes)] = 1
        return Rows(rows.planes, scales)

    def arrays(self, shape: Shape, drawn: Rows) -> Arrays:
        """Per axis the lower and upper voxel that each one reads, and the weight of the upper: (planes, size)."""
        made: Arrays = {}
        for axis, size in enumerate(shape[2:]):
            if axis not in self.kept_axes:
                itself = np.tile(np.arange(size), (shape[0] * shape[1], 1))
                lower, upper, weight = itself, itself.copy(), np.zeros(itself.shape, np.float32)
                read = coarse_positions(size, drawn.values[:, axis])
                lower[drawn.planes], upper[drawn.planes], weight[drawn.planes] = read
                made |= {f"lower {axis}": lower, f"upper {axis}": upper, f"weight {axis}": weight}
        return made

    def change(self, batch: Batch, given: Tensors) -> Batch:
        x = planes_of(batch)
        for axis in range(x.ndim - 1):
            if axis not in self.kept_axes:
                view = [len(x), *(1,) * (x.ndim - 1)]
                view[axis + 1] = x.shape[axis + 1]
                lower, upper, weight = (given[f"{name} {axis}"].view(view) for name in ("lower", "upper", "weight"))
                below, above = (x.gather(axis + 1, at.expand_as(x)) for at in (lower, upper))
                x = torch.lerp(below, above, weight)
        return Batch(x.view(batch.shape), batch.seg)


def coarse_positions(size: int, scales: Floats) -> tuple[Ints, Ints, Floats]:
    """Voxels read along an axis of `size` that is coarsened by scales (n,): see LowResolution.arrays.

    Both steps are separable, so that the axes can go one by one.
    """
    # round(), as Python's: half to even
    coarse = np.maximum(np.rint(size * scales).astype(np.int64), 1)[:, None]
    lower, upper, weight = linear(size, coarse)
    return nearest_exact(lower, coarse, size), nearest_exact(upper, coarse, size), weight
