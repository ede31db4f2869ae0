"""Masks of one class in one case: what a metric of borders or distances compares."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Masks:
    """Truth and prediction of one class in one case, bool of one shape, 2D or 3D, no axis of which is a single pixel.

    spacing: per axis. Pixels that the truth ignores are background in both. Raises TypeError for other types than bool:
    NaN, which compares as false with everything, would be background or foreground without a word.
    """

    truth: NDArray[np.bool_]
    prediction: NDArray[np.bool_]
    spacing: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, mask in (("truth", self.truth), ("prediction", self.prediction)):
            if mask.dtype != np.bool_:
                raise TypeError(f"the {name} has the type {mask.dtype}, masks are bool; compare it with a label")

    @cached_property
    def both_empty(self) -> bool:
        return not self.truth.any() and not self.prediction.any()

    @cached_property
    def one_empty(self) -> bool:
        return bool(self.truth.any() != self.prediction.any())

    @cached_property
    def box(self) -> tuple[slice, ...]:
        """The smallest box around both masks, of which one must not be empty."""
        return bounding_box(self.truth | self.prediction)


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box around a mask that is not empty."""
    box = []
    for axis in range(mask.ndim):
        inside = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)
