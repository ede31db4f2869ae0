"""Gaussian blur, with a width per channel and axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunetv2_slicemamba.augmentation.batch import Batch, Bools, Ints, Rows, change_planes, draw_rows, on_device
from nnunetv2_slicemamba.augmentation.scalars import Floats, Scalar

REACH = 6  # a kernel's length in standard deviations, as in batchgeneratorsv2


@dataclass(frozen=True)
class GaussianBlur:
    """Blurs each channel with probability `p_channel`.

    width: standard deviation in voxels. synchronised: the channels of a sample share it; same_axes: the axes do.
    """

    width: Scalar
    p_channel: float
    synchronised: bool
    same_axes: bool

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator, chosen: Bools) -> Rows:
        """Widths (n, axes)."""
        axes = len(shape) - 2
        drawn = (1 if self.same_axes else axes,)
        rows = draw_rows(rng, chosen, shape[1], self.p_channel, self.width, self.synchronised, drawn)
        return Rows(rows.planes, np.broadcast_to(rows.values, (len(rows.planes), axes)))

    def apply(self, batch: Batch, drawn: Rows) -> Batch:
        def blur(x: Tensor) -> Tensor:
            weights = on_device(kernels(drawn.values), batch.data)
            for axis in range(x.ndim - 1):
                x = _blur_axis(x, weights[:, axis], axis + 1)
            return x

        return change_planes(batch, drawn.planes, blur)


def kernel_lengths(widths: Floats) -> Ints:
    """The odd length nearest to REACH widths and a half, which is the lower one where an even one is rounded up to."""
    wanted = REACH * widths + 0.5
    rounded = np.rint(wanted).astype(np.int64)
    return np.where(rounded % 2 == 1, rounded, np.where(wanted >= rounded, rounded + 1, rounded - 1))


def kernels(widths: Floats) -> Floats:
    """Normalised kernels (..., K) for widths (...); K is the longest one's length, shorter ones end in zeros."""
    lengths = kernel_lengths(widths)
    half = int(lengths.max()) // 2
    at = np.arange(-half, half + 1)
    values = np.exp(-0.5 * (at / widths[..., None]) ** 2) * (np.abs(at) <= lengths[..., None] // 2)
    return values / values.sum(-1, keepdims=True)


def _blur_axis(x: Tensor, weights: Tensor, axis: int) -> Tensor:
    """x (n, *spatial) along one axis by weights (n, K), mirrored at the border without repeating it.

    Sums of shifted images: convolutions would round to TF32.
    """
    size, length = x.shape[axis], weights.shape[1]
    reflected = np.pad(np.arange(size), length // 2, mode="reflect")
    padded = x.index_select(axis, on_device(reflected, x, torch.int64))
    column = weights.view(len(x), length, *(1,) * (x.ndim - 1))
    result = padded.narrow(axis, 0, size) * column[:, 0]
    for k in range(1, length):
        result.addcmul_(padded.narrow(axis, k, size), column[:, k])
    return result
