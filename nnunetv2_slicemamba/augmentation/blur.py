"""Gaussian blur, with a width per channel and axis."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv3d

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
from nnunetv2_slicemamba.augmentation.scalars import Floats, Scalar

REACH = 6  # a kernel's length in standard deviations, as in batchgeneratorsv2


@dataclass(frozen=True)
class GaussianBlur(FixedTwin):
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

    def arrays(self, shape: Shape, drawn: Rows) -> Arrays:
        length = int(kernel_lengths(np.array(self.width.highest)))
        identity = np.arange(length) == length // 2
        weights = np.tile(identity.astype(np.float32), (shape[0] * shape[1], len(shape) - 2, 1))
        weights[drawn.planes] = kernels(drawn.values, length)
        return {"weights": weights}

    def change(self, batch: Batch, given: Tensors) -> Batch:
        x = planes_of(batch)
        for axis in range(x.ndim - 1):
            x = _blur_axis(x, given["weights"][:, axis], axis + 1)
        return Batch(x.view(batch.shape), batch.seg)


def kernel_lengths(widths: Floats) -> Ints:
    """The odd length nearest to REACH widths and a half, which is the lower one where an even one is rounded up to."""
    wanted = REACH * widths + 0.5
    rounded = np.rint(wanted).astype(np.int64)
    return np.where(rounded % 2 == 1, rounded, np.where(wanted >= rounded, rounded + 1, rounded - 1))


def kernels(widths: Floats, longest: int) -> Floats:
    """Normalised kernels (..., longest) for widths (...); those that are shorter have zeros at both ends."""
    half = longest // 2
    at = np.arange(-half, half + 1)
    reach = kernel_lengths(widths)[..., None] // 2
    values = np.exp(-0.5 * (at / widths[..., None]) ** 2) * (np.abs(at) <= reach)
    return values / values.sum(-1, keepdims=True)


def _blur_axis(x: Tensor, weights: Tensor, axis: int) -> Tensor:
    """x (n, *spatial) along one axis by weights (n, K), mirrored at the border without repeating it.

    One convolution of every channel by itself. In float32 PyTorch runs these without cuDNN, which would round to TF32.
    """
    length = weights.shape[1]
    padded = x.index_select(axis, _reflected(x.shape[axis], length // 2, x.device))
    kernel = weights.view(len(x), 1, *(length if a == axis else 1 for a in range(1, x.ndim)))
    convolve = conv2d if x.ndim == 3 else conv3d
    return convolve(padded[None], kernel, groups=len(x))[0]


@lru_cache(maxsize=64)
def _reflected(size: int, width: int, device: torch.device) -> Tensor:
    """Positions of `size` voxels and of `width` mirrored ones on either side."""
    return torch.from_numpy(np.pad(np.arange(size), width, mode="reflect")).to(device)
