"""Choice of a slicing: what every block does, and how it was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnunetv2_slicemamba.slicing.candidates import Architecture, Slicing, check_slicing

HOW_CHOSEN = ("search", "fixed", "random", "consensus", "file")
# entry of a search's details: what its finals trained, and their Dice
FINALISTS = "finalists"


@dataclass(frozen=True)
class SlicingChoice:
    """A slicing for every block of a network, and how it was chosen.

    slicing: a candidate per block, in network order: thicknesses in tokens, 1 to 255 per axis, "no-scan", "no-block".
    how_chosen: one of HOW_CHOSEN. architecture: (blocks,) candidate indices, None if the slicing does not consist of
    candidates. fitness: of the architecture, None if unknown or undefined. seed: of the draw or of the search, None if
    nothing was drawn. details: how it was chosen in particular; plain JSON values. Raises ValueError naming the value
    and the rule.
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
