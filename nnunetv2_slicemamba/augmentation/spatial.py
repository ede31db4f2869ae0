"""Rotation and scaling of a part of the samples, the crop of all of them to the final patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from nnunetv2_slicemamba.augmentation.batch import Batch, Bools, Ints, on_device
from nnunetv2_slicemamba.augmentation.geometry import rotation_2d, rotation_3d, sampling_grid
from nnunetv2_slicemamba.augmentation.scalars import Floats, Scalar
from nnunetv2_slicemamba.augmentation.spatial_labels import resample_labels


@dataclass(frozen=True)
class DrawnSpatial:
    """moved: (B,), the samples that are rotated or scaled. matrices: (B, axes, axes), from the patch's centred voxels
    to the source's. centres: (B, axes), of the patch in the source, in voxels from its first edge."""

    moved: Bools
    matrices: Floats
    centres: Floats


@dataclass(frozen=True)
class Spatial:
    """Rotates and scales, and crops to `patch`.

    p_axis: probability of a rotation to include an axis. p_same_scale: of a scaling to be the same along all axes.
    border: distance of a random crop's centre from the source's edge per axis; None for the centre. outside_image and
    outside_seg: values beyond the source. labels: all that segmentations hold.
    """

    patch: tuple[int, ...]
    border: tuple[float, ...] | None
    p_rotation: float
    rotation: Scalar
    p_axis: float
    p_scaling: float
    scaling: Scalar
    p_same_scale: float
    outside_image: float
    outside_seg: int
    labels: tuple[int, ...]

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator, chosen: Bools) -> DrawnSpatial:
        n, axes = shape[0], len(shape) - 2
        rotated = chosen & (rng.random(n) < self.p_rotation)
        scaled = chosen & (rng.random(n) < self.p_scaling)
        angles = self.rotation.draw(rng, (n, axes)) * (rng.random((n, axes)) <= self.p_axis) * rotated[:, None]
        same = rng.random(n) <= self.p_same_scale
        scales = np.where(same[:, None], self.scaling.draw(rng, (n, 1)), self.scaling.draw(rng, (n, axes)))
        scales = np.where(scaled[:, None], scales, 1.0)
        # in 2D, batchgeneratorsv2 draws two angles and takes the last
        turned = rotation_3d(angles) if axes == 3 else rotation_2d(angles[:, -1])
        return DrawnSpatial(rotated | scaled, turned * scales[:, None, :], self._centres(shape, rng))

    def _centres(self, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
        n, size = shape[0], np.asarray(shape[2:], float)
        if self.border is None:
            return np.tile(size / 2, (n, 1))
        low, high = np.asarray(self.border, float), size - np.asarray(self.border, float)
        return np.where(low <= high, rng.uniform(low, np.maximum(low, high), (n, len(size))), size / 2)

    def apply(self, batch: Batch, drawn: DrawnSpatial) -> Batch:
        corners = np.floor(drawn.centres).astype(np.int64) - np.asarray(self.patch) // 2
        data = _crop(batch.data, corners, self.patch, self.outside_image)
        seg = _crop(batch.seg, corners, self.patch, self.outside_seg)
        moved = np.flatnonzero(drawn.moved)
        if len(moved):
            index = on_device(moved, batch.data, torch.int64)
            source, source_seg = batch.data.index_select(0, index), batch.seg.index_select(0, index)
            grid = sampling_grid(
                drawn.matrices[moved], drawn.centres[moved], self.patch, source.shape[2:], like=batch.data
            )
            sampled = grid_sample(source.sub_(self.outside_image), grid, "bilinear", "zeros", False)
            data.index_copy_(0, index, sampled.add_(self.outside_image))
            seg.index_copy_(0, index, resample_labels(source_seg, grid, self.labels, self.outside_seg))
        return Batch(data, seg)


def _crop(x: Tensor, corners: Ints, patch: tuple[int, ...], outside: float) -> Tensor:
    """A copy of x (B, C, *spatial) from corners (B, axes) on, `outside` where x ends."""
    if (corners == corners[0]).all():
        return _cut(x, corners[0], patch, outside)
    return torch.cat([_cut(x[i : i + 1], corner, patch, outside) for i, corner in enumerate(corners)])


def _cut(x: Tensor, corner: Ints, patch: tuple[int, ...], outside: float) -> Tensor:
    widths: list[int] = []
    for axis, (start, size) in enumerate(zip(corner.tolist(), patch, strict=True), start=2):
        end = min(start + size, x.shape[axis])
        widths = [max(0, -start), start + size - end, *widths]
        x = x.narrow(axis, max(0, start), end - max(0, start))
    if any(widths):
        return pad(x, widths, value=outside)
    return x.clone(memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class PerSlice:
    """A spatial operation of images for volumes: the same one for all slices along the first axis (dummy 2D)."""

    spatial: Spatial

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator, chosen: Bools) -> DrawnSpatial:
        return self.spatial.draw((shape[0], shape[1] * shape[2], *shape[3:]), rng, chosen)

    def apply(self, batch: Batch, drawn: DrawnSpatial) -> Batch:
        slices = self.spatial.apply(Batch(batch.data.flatten(1, 2), batch.seg.flatten(1, 2)), drawn)
        depth = batch.shape[2]
        return Batch(slices.data.unflatten(1, (-1, depth)), slices.seg.unflatten(1, (-1, depth)))
