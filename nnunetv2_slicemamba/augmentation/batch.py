"""A batch on its way through the pipeline, and the planes of it that an operation changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunetv2_slicemamba.augmentation.scalars import Floats, Scalar

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Images and segmentations of equal patches.

    data: (B, C, *spatial) float32, contiguous. seg: (B, S, *spatial) int16, or bool for regions; a list of them, the
    finest first, for deep supervision. Operations may change both in place.
    """

    data: Tensor
    seg: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)


class Twin(Protocol):
    """One of nnU-Net's transforms for whole batches, in two parts: chance, and what follows from it."""

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator, chosen: Bools) -> Any:
        """Random parameters of one application, drawn on the host.

        shape: of the batch's data. chosen: (B,), the samples that the operation may change.
        """

    def apply(self, batch: Batch, drawn: Any) -> Batch:
        """The changed batch, on its own device; a function of its arguments alone."""


@dataclass(frozen=True)
class Rows:
    """Planes that an operation changes and a number for each of them.

    planes: (n,) int64, sample * C + channel. values: (n, ...) float64.
    """

    planes: Ints
    values: Floats


def draw_planes(rng: np.random.Generator, chosen: Bools, channels: int, p: float) -> Ints:
    """Planes of the chosen samples, each with probability p."""
    return np.flatnonzero(chosen[:, None] & (rng.random((len(chosen), channels)) < p))


def draw_rows(
    rng: np.random.Generator,
    chosen: Bools,
    channels: int,
    p: float,
    scalar: Scalar,
    synchronised: bool,
    per_plane: tuple[int, ...] = (),
) -> Rows:
    """Planes of the chosen samples, each with probability p, and numbers of shape `per_plane` for each.

    synchronised: the channels of a sample share their numbers.
    """
    planes = draw_planes(rng, chosen, channels, p)
    if synchronised:
        return Rows(planes, scalar.draw(rng, (len(chosen), *per_plane))[planes // channels])
    return Rows(planes, scalar.draw(rng, (len(planes), *per_plane)))


def on_device(array: NDArray[Any], like: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """A small array beside a tensor; the host does not wait for the copy."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(dtype).to(like.device, non_blocking=True)


def column(values: Floats, like: Tensor) -> Tensor:
    """Numbers (n,) to be broadcast against planes (n, *spatial)."""
    return on_device(values, like).view(-1, *(1,) * (like.ndim - 2))


def change_planes(batch: Batch, planes: Ints, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch after `change` of the named planes, which it is given as (n, *spatial), a tensor of its own."""
    if len(planes):
        index = on_device(planes, batch.data, torch.int64)
        flat = batch.data.flatten(0, 1)
        flat.index_copy_(0, index, change(flat.index_select(0, index)))
    return batch
