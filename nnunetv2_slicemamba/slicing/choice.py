"""What is chosen: the slicing of every block, and how it was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnunetv2_slicemamba.slicing.candidates import Architecture, Slicing

HOW_CHOSEN = ("search", "fixed", "random", "consensus", "file")
MAX_THICKNESS = 255  # the network keeps its slicing in a uint8 buffer


@dataclass(frozen=True)
class SlicingChoice:
    """A slicing for every block of a network, and how it was chosen.

    slicing: (blocks, axes) thicknesses in tokens, 1 to 255, in network order. how_chosen: one of HOW_CHOSEN.
    architecture: (blocks,) candidate indices, None if the slicing does not consist of candidates. fitness: of the
    architecture, None if unknown or undefined. seed: of the draw or of the search, None if nothing was drawn.
    details: how it was chosen in particular; plain JSON values.
    Raises ValueError naming the value and the rule.
    """

    slicing: Slicing
    how_chosen: str
    architecture: Architecture | None = None
    fitness: float | None = None
    seed: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.how_chosen not in HOW_CHOSEN:
            raise ValueError(f"how_chosen is {self.how_chosen!r}, it must be one of {', '.join(HOW_CHOSEN)}")
        check_slicing(self.slicing)
        if self.architecture is not None and len(self.architecture) != len(self.slicing):
            raise ValueError(f"{len(self.architecture)} candidate indices for {len(self.slicing)} blocks")
        if self.fitness is not None and not math.isfinite(self.fitness):
            raise ValueError(f"fitness is {self.fitness}, it must be finite; give None where it is undefined")


def check_slicing(slicing: Slicing, what: str = "block") -> None:
    """Raises ValueError, naming value and rule, unless every thickness fits and all have the same number of axes."""
    if not slicing:
        raise ValueError(f"a slicing needs at least one {what}")
    for i, thickness in enumerate(slicing):
        if len(thickness) not in (2, 3) or len(thickness) != len(slicing[0]):
            raise ValueError(
                f"{what} {i} has thickness {tuple(thickness)}; all need one number per axis, 2 in 2D and 3 in 3D"
            )
        for value in thickness:
            check_thickness(value, f"{what} {i}")


def check_thickness(value: Any, what: str) -> None:
    """Raises ValueError unless value is a whole number from 1 to 255."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_THICKNESS:
        raise ValueError(f"{what} has a thickness of {value!r}; it must be a whole number from 1 to {MAX_THICKNESS}")
