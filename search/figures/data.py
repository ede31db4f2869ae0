"""The data behind the figures of a fold's search, gathered once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nnunetv2_slicemamba.search.figures.stages import Stage, block_names
from nnunetv2_slicemamba.search.fitness import FITNESS_DEFINITION, title_of
from nnunetv2_slicemamba.search.objectives import Cost
from nnunetv2_slicemamba.search.proposals.ranking import chosen_record, feasible_of
from nnunetv2_slicemamba.search.records import History, Record
from nnunetv2_slicemamba.slicing.candidates import Slicing

N_BEST = 50  # fewer architectures than that have no "best ones" to look at: all of them would be


@dataclass(frozen=True)
class FoldChoice:
    """A fold's search as the other folds' figures need it.

    slicing: None if it has no best_slicing.json yet. history: its evaluations.
    """

    slicing: Slicing | None
    history: History


@dataclass(frozen=True)
class FigureData:
    """A fold's search, ready to be drawn.

    records: of all evaluations, ordered by (generation, index). candidates: thickness per candidate index. stages:
    highest resolution first. folds: every searched fold, this one included, by name. cost: what the search measured
    beside the fitness, None for nothing. fitness_title: what the fitness is.
    Raises ValueError if no record has a defined fitness, or none that has is within the cost's limit.
    """

    dataset: str
    configuration: str
    plans_name: str
    trainer: str
    fold: str
    records: Sequence[Record]
    candidates: Slicing
    stages: Sequence[Stage]
    folds: Mapping[str, FoldChoice] = field(default_factory=dict)
    cost: Cost | None = None
    fitness_title: str = title_of(FITNESS_DEFINITION)

    def __post_init__(self) -> None:
        if chosen_record(self.records, self.cost) is None:
            within = "" if self.cost is None or self.cost.limit is None else f" within {self.cost.flag}"
            raise ValueError(f"there is nothing to draw: no record has a defined fitness{within}")

    @property
    def best(self) -> Record:
        """The record that the search chooses."""
        best = chosen_record(self.records, self.cost)
        assert best is not None
        return best

    @property
    def eligible(self) -> list[Record]:
        """The records of defined fitness within the cost's limit."""
        return feasible_of(self.records, self.cost)

    @property
    def n_best(self) -> int:
        """Number of the best architectures to look at, at most the better half; 0 of too few to have best ones."""
        n = sum(not math.isnan(record.fitness) for record in self.eligible)
        return 0 if n < N_BEST else min(N_BEST, n // 2)

    @property
    def slicing(self) -> Slicing:
        """The slicing of the best architecture."""
        return tuple(self.candidates[index] for index in self.best.architecture)

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return len(self.best.architecture)

    @property
    def title(self) -> str:
        """Dataset, configuration and fold, as a heading."""
        return f"{self.dataset}, {self.configuration}, fold {self.fold}"

    @property
    def block_names(self) -> list[str]:
        """Names of the blocks in network order: e1.1, e1.2, ..., d1.1."""
        return block_names(self.stages)
