"""Rotation and scaling of a part of the samples, the crop of all of them to the final patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from nnunetv2_slicemamba.augmentation.batch import Arrays, Batch, Bools, FixedTwin, Shape, Tensors
from nnunetv2_slicemamba.augmentation.geometry import grid_parameters, rotation_2d, rotation_3d, sampling_grid
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
class Spatial(FixedTwin):
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

    def arrays(self, shape: Shape, drawn: DrawnSpatial) -> Arrays:
        """Arrays of the draw; of a random crop also, per axis, the voxels read and those in the source, (B, patch)."""
        columns, offset = grid_parameters(drawn.matrices, drawn.centres, shape[2:])
        made: Arrays = {"moved": drawn.moved, "columns": columns, "offset": offset}
        if self.border is not None:
            for axis, size in enumerate(shape[2:]):
                first = np.floor(drawn.centres[:, axis]).astype(np.int64) - self.patch[axis] // 2
                read = first[:, None] + np.arange(self.patch[axis])
                made[f"read {axis}"] = read.clip(0, size - 1)
                made[f"inside {axis}"] = (read >= 0) & (read < size)
        return made

    def output_shape(self, shape: Shape) -> Shape:
        return (*shape[:2], *self.patch)

    def change(self, batch: Batch, given: Tensors) -> Batch:
        source, moved = batch.data, given["moved"].view(-1, *(1,) * (batch.data.ndim - 1))
        data = self._crop(source, given, self.outside_image)
        seg = self._crop(batch.seg, given, self.outside_seg)
        grid = sampling_grid(given["columns"], given["offset"], self.patch)
        beyond = self.outside_image
        sampled = grid_sample(source.sub_(beyond) if beyond else source, grid, "bilinear", "zeros", False)
        sampled_seg = resample_labels(batch.seg, grid, self.labels, self.outside_seg)
        sampled = sampled.add_(beyond) if beyond else sampled
        return Batch(sampled.where(moved, data), sampled_seg.where(moved, seg))

    def _crop(self, x: Tensor, given: Tensors, outside: float) -> Tensor:
        """A patch of x (B, C, *spatial) without rotation and scaling, `outside` where x ends."""
        if self.border is None:
            return _central(x, self.patch, outside)
        for axis, size in enumerate(self.patch, start=2):
            view = [len(x), *(1,) * (x.ndim - 1)]
            view[axis] = size
            read, inside = (given[f"{name} {axis - 2}"].view(view) for name in ("read", "inside"))
            x = x.gather(axis, read.expand(*x.shape[:axis], size, *x.shape[axis + 1 :])).where(inside, outside)
        return x


def _central(x: Tensor, patch: tuple[int, ...], outside: float) -> Tensor:
    """A copy of the middle of x (B, C, *spatial)."""
    widths: list[int] = []
    for axis, size in enumerate(patch, start=2):
        start = x.shape[axis] // 2 - size // 2
        end = min(start + size, x.shape[axis])
        widths = [max(0, -start), start + size - end, *widths]
        x = x.narrow(axis, max(0, start), end - max(0, start))
    if any(widths):
        return pad(x, widths, value=outside)
    return x.clone(memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class PerSlice(FixedTwin):
    """A spatial operation of images for volumes: the same one for all slices along the first axis (dummy 2D)."""

    spatial: Spatial

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator, chosen: Bools) -> DrawnSpatial:
        return self.spatial.draw((shape[0], shape[1] * shape[2], *shape[3:]), rng, chosen)

    def arrays(self, shape: Shape, drawn: DrawnSpatial) -> Arrays:
        return self.spatial.arrays((shape[0], shape[1] * shape[2], *shape[3:]), drawn)

    def output_shape(self, shape: Shape) -> Shape:
        return (*shape[:3], *self.spatial.patch)

    def change(self, batch: Batch, given: Tensors) -> Batch:
        slices = self.spatial.change(Batch(batch.data.flatten(1, 2), batch.seg.flatten(1, 2)), given)
        depth = batch.shape[2]
        return Batch(slices.data.unflatten(1, (-1, depth)), slices.seg.unflatten(1, (-1, depth)))
