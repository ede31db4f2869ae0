"""Positions from which PyTorch's interpolation reads along one axis, as arrays: batches mix sizes, its calls do not."""

from __future__ import annotations

import numpy as np

from nnunetv2_slicemamba.augmentation.batch import Ints
from nnunetv2_slicemamba.augmentation.scalars import Floats

HALF = np.float32(0.5)


def nearest_exact(position: Ints, size: Ints, source: int) -> Ints:
    """Source element that mode "nearest-exact" from `source` to `size` elements reads for `position`."""
    # single precision, as PyTorch computes it: ties are decided by its rounding
    scale = np.float32(source) / size.astype(np.float32)
    return np.minimum(np.floor((position.astype(np.float32) + HALF) * scale).astype(np.int64), source - 1)


def linear(target: int, size: Ints) -> tuple[Ints, Ints, Floats]:
    """Lower and upper element that mode "linear" from `size` (n, 1) to `target` elements reads, weight of the upper.

    Each is (n, target).
    """
    position = np.arange(target, dtype=np.float32)[None]
    scale = size.astype(np.float32) / np.float32(target)
    at = np.maximum(scale * (position + HALF) - HALF, np.float32(0))
    lower = np.minimum(at.astype(np.int64), size - 1)
    return lower, np.minimum(lower + 1, size - 1), (at - lower.astype(np.float32)).astype(np.float64)
