"""Rotations, scalings, and the places that a patch is sampled at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunetv2_slicemamba.augmentation.scalars import Floats

Singles = NDArray[np.float32]


def rotation_2d(angles: Floats) -> Floats:
    """Rotations (n, 2, 2) of (y, x) by angles (n,)."""
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)


def rotation_3d(angles: Floats) -> Floats:
    """Rotations (n, 3, 3) by angles (n, 3) around the first, then the second, then the third axis."""
    result = np.broadcast_to(np.eye(3), (len(angles), 3, 3))
    # the second axis turns the other way round, as (x, z) and not (z, x)
    for axis, (row, column) in enumerate([(1, 2), (2, 0), (0, 1)]):
        turn = np.broadcast_to(np.eye(3), (len(angles), 3, 3)).copy()
        cos, sin = np.cos(angles[:, axis]), np.sin(angles[:, axis])
        turn[:, row, row] = turn[:, column, column] = cos
        turn[:, row, column], turn[:, column, row] = -sin, sin
        result = turn @ result
    return result


def grid_parameters(matrices: Floats, centres: Floats, source: Sequence[int]) -> tuple[Singles, Singles]:
    """Arguments of sampling_grid for transformations: columns (n, axes, axes) and offset (n, axes), float32.

    matrices: (n, axes, axes), from the patch's centred voxels to the source's. centres: (n, axes), where the patch's
    centre lies in the source, in voxels from its first edge.
    """
    half = np.asarray(source) / 2
    # rows in the order x, y, z that grid_sample reads
    columns = (matrices / half[:, None])[:, ::-1].swapaxes(1, 2)
    return columns.astype(np.float32), ((centres - half) / half)[:, ::-1].astype(np.float32)


def sampling_grid(columns: Tensor, offset: Tensor, patch: Sequence[int]) -> Tensor:
    """Places (n, *patch, axes) in grid_sample's coordinates, without aligned corners; arguments: grid_parameters'."""
    axes = len(patch)
    grid = offset.view(-1, *(1,) * axes, axes)
    for axis, size in enumerate(patch):
        voxels = torch.arange(size, device=offset.device, dtype=torch.float32) - (size - 1) / 2
        along = voxels.view(*(size if a == axis else 1 for a in range(axes)), 1)
        grid = grid + along * columns[:, axis].view(-1, *(1,) * axes, axes)
    return grid
