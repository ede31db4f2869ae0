"""A batch on its way through the pipeline, and the planes of it that an operation changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunetv2_slicemamba.augmentation.scalars import Floats, Scalar

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """Images and segmentations of equal patches.

    data: (B, C, *spatial) float32, contiguous. seg: (B, S, *spatial) int16, or bool for regions; a list of them, the
    finest first, for deep supervision. Operations may change both in place.
    """

    data: Tensor
    seg: Any

    @property
    def shape(self) -> Shape:
        return tuple(self.data.shape)


class Twin(ABC):
    """One of nnU-Net's transforms for whole batches, in two parts: chance, and what follows from it."""

    @abstractmethod
    def draw(self, shape: Shape, rng: np.random.Generator, chosen: Bools) -> Any:
        """Random parameters of one application, drawn on the host.

        shape: of the batch's data. chosen: (B,), the samples that the operation may change.
        """

    @abstractmethod
    def apply(self, batch: Batch, drawn: Any) -> Batch:
        """The changed batch, on its own device; a function of its arguments alone."""


@dataclass(frozen=True)
class Normals:
    """Standard normal numbers of a shape, which are drawn on the device from a seed."""

    seed: int
    shape: Shape

    def drawn(self, device: torch.device) -> Tensor:
        return torch.empty(self.shape, device=device).normal_(generator=torch.Generator(device).manual_seed(self.seed))


Arrays = dict[str, NDArray[Any] | Normals]
Tensors = Mapping[str, Tensor]


class FixedTwin(Twin):
    """A transform that does the same work whatever was drawn, so that a CUDA graph can hold it.

    What was drawn goes to the device as arrays, whose shapes follow from the batch's; planes and samples that are not
    chosen are computed like the others, and keep their values.
    """

    @abstractmethod
    def arrays(self, shape: Shape, drawn: Any) -> Arrays:
        """Arrays by name that `change` reads of a draw; their shapes follow from that of the batch's data, `shape`."""

    @abstractmethod
    def change(self, batch: Batch, given: Tensors) -> Batch:
        """The changed batch; given: the arrays on its device."""

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the changed batch's data."""
        return shape

    def apply(self, batch: Batch, drawn: Any) -> Batch:
        return self.change(batch, to_device(self.arrays(batch.shape, drawn), batch.data.device))


def to_device(arrays: Arrays, device: torch.device) -> dict[str, Tensor]:
    """Arrays as tensors; the host does not wait for the copies."""
    return {
        name: value.drawn(device)
        if isinstance(value, Normals)
        else torch.from_numpy(np.ascontiguousarray(value)).to(device, non_blocking=True)
        for name, value in arrays.items()
    }


@dataclass(frozen=True)
class Rows:
    """Planes that an operation changes and a number for each of them.

    planes: (n,) int64, sample * C + channel. values: (n, ...) float64.
    """

    planes: Ints
    values: Floats

    def over(self, count: int, others: float) -> NDArray[np.float32]:
        """The numbers of all `count` planes, (count, ...); `others` for those that are not named."""
        result = np.full((count, *self.values.shape[1:]), others, np.float32)
        result[self.planes] = self.values
        return result


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


def chosen_rows(planes: Ints, count: int, which: Bools | bool = True) -> Bools:
    """(count,): the named planes, those of them for which `which` is true."""
    result = np.zeros(count, bool)
    result[planes] = which
    return result


def planes_of(batch: Batch) -> Tensor:
    """View (B * C, *spatial) of a batch's data."""
    return batch.data.flatten(0, 1)


def column(values: Tensor, like: Tensor) -> Tensor:
    """Numbers (n,) to be broadcast against planes (n, *spatial)."""
    return values.view(-1, *(1,) * (like.ndim - 1))
