"""Low resolution simulated: down by the nearest neighbour, up again linearly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunetv2_slicemamba.augmentation.batch import Batch, Bools, Rows, change_planes, draw_rows, on_device
from nnunetv2_slicemamba.augmentation.resampling_index import linear, nearest_exact
from nnunetv2_slicemamba.augmentation.scalars import Floats, Scalar


@dataclass(frozen=True)
class LowResolution:
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

    def apply(self, batch: Batch, drawn: Rows) -> Batch:
        def coarsen(x: Tensor) -> Tensor:
            for axis in range(x.ndim - 1):
                if (drawn.values[:, axis] != 1).any():
                    x = _coarsen_axis(x, drawn.values[:, axis], axis + 1)
            return x

        return change_planes(batch, drawn.planes, coarsen)


def _coarsen_axis(x: Tensor, scales: Floats, axis: int) -> Tensor:
    """x (n, *spatial) along one axis by scales (n,). Both steps are separable, so the axes can go one by one."""
    size = x.shape[axis]
    # round(), as Python's: half to even
    coarse = np.maximum(np.rint(size * scales).astype(np.int64), 1)[:, None]
    lower, upper, weight = linear(size, coarse)
    view = [len(x), *(1,) * (x.ndim - 1)]
    view[axis] = size

    def read(position: np.ndarray) -> Tensor:
        index = on_device(nearest_exact(position, coarse, size), x, torch.int64)
        return x.gather(axis, index.view(view).expand_as(x))

    return torch.lerp(read(lower), read(upper), on_device(weight, x).view(view))
