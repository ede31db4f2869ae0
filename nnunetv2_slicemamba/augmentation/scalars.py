"""Ranges that augmentation draws numbers from, read from the parameters of nnU-Net's transforms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast
from numpy.typing import NDArray

from nnunetv2_slicemamba.augmentation.unknown import UnknownTransformError

Floats = NDArray[np.float64]


class Scalar(Protocol):
    """A distribution of numbers."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats: ...

    @property
    def highest(self) -> float:
        """No draw is above it."""


@dataclass(frozen=True)
class Uniform:
    """Every number from `low` to `high` alike; a constant if both are equal."""

    low: float
    high: float

    @property
    def highest(self) -> float:
        return max(self.low, self.high)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        return rng.uniform(self.low, self.high, shape)


@dataclass(frozen=True)
class AroundOne:
    """Below one in half of the draws if `low` is below one, else above; uniform on either side."""

    low: float
    high: float

    @property
    def highest(self) -> float:
        return max(self.low, self.high)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        below = (rng.random(shape) < 0.5) & (self.low < 1)
        low, high = np.where(below, self.low, max(self.low, 1)), np.where(below, 1, self.high)
        return rng.uniform(low, high)


def known_scalar(value: Any, name: str) -> Scalar:
    """The distribution of a transform's parameter `name`; UnknownTransformError if it is of another kind."""
    if type(value) in (int, float):
        return Uniform(value, value)
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(type(v) in (int, float) for v in value):
        return Uniform(*value)
    # nnU-Net's rotation limits are products with numpy's pi
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(v, np.floating) for v in value):
        return Uniform(*map(float, value))
    if type(value) is BGContrast and not callable(value.contrast_range):
        return AroundOne(*value.contrast_range)
    raise UnknownTransformError(f"{name} = {_described(value)}")


def _described(value: Any) -> str:
    if isinstance(value, Callable):  # type: ignore[arg-type]
        return getattr(value, "__qualname__", type(value).__name__)
    return repr(value)
