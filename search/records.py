"""Records of an architecture before, during and after its evaluation.

Notation: an architecture is a tuple of one candidate index per block, in network order (encoder stages first, then
decoder stages); in 2D the indices 0..3 mean the thicknesses (2, 2), (2, 4), (4, 2), (4, 4). Fitness has no unit and
larger is better; NaN means that it is undefined.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from nnunetv2_slicemamba.common.json_files import plain_json
from nnunetv2_slicemamba.slicing.candidates import Architecture

History: TypeAlias = Sequence[tuple[Architecture, float]]

RANDOM, MUTANT, CROSSOVER = "random", "mutant", "crossover"
TPE_ORIGIN, NSGA2_ORIGIN = "tpe", "nsga2"  # by Optuna's samplers


class Proposal(NamedTuple):
    """An architecture to evaluate, and how it came about, such as RANDOM."""

    architecture: Architecture
    origin: str


@dataclass(frozen=True)
class Task:
    """An architecture to evaluate, at its place in the search.

    generation: 0 is the random one. index: position within the generation. origin: as of a Proposal.
    """

    generation: int
    index: int
    architecture: Architecture
    origin: str = RANDOM


def tasks_of(architectures: Iterable[Architecture]) -> list[Task]:
    """Architectures as one generation's tasks, for evaluations outside a search."""
    return [Task(0, index, architecture) for index, architecture in enumerate(architectures)]


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating an architecture.

    fitness: larger is better, finite or NaN (undefined). details: anything else worth keeping, e.g. Dice per class;
    names to numbers, strings, lists or dicts of them (NumPy's included). cost: as measured, in the unit of the search's
    cost; None if none was. Raises ValueError for an infinite fitness, or a cost that is not finite and at least 0.
    """

    fitness: float
    details: Mapping[str, Any] = field(default_factory=dict)
    cost: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "fitness", float(self.fitness))
        if math.isinf(self.fitness):
            raise ValueError(f"a fitness is finite or NaN, got {self.fitness}; return NaN where it is undefined")
        if self.cost is not None:
            object.__setattr__(self, "cost", float(self.cost))
            if not 0 <= self.cost < math.inf:
                raise ValueError(f"a cost is finite and at least 0, got {self.cost}; measure it again")


@dataclass(frozen=True)
class Done:
    """A finished task: the form in which an evaluation travels, from the device that made it to the ledger.

    seconds: duration of the evaluation. kept: whether the process that made it has kept it already.
    """

    task: Task
    evaluation: Evaluation
    seconds: float
    kept: bool = False


@dataclass(frozen=True)
class Record:
    """A finished evaluation, as the ledger keeps it.

    generation: 0 is the random one. index: position within the generation. origin: as of a Proposal. seconds: duration
    of the evaluation. details: as in Evaluation, plain JSON values. cost: as in Evaluation.
    """

    architecture: Architecture
    fitness: float
    generation: int
    index: int
    origin: str
    seconds: float
    details: Mapping[str, Any] = field(default_factory=dict)
    cost: float | None = None

    @classmethod
    def of(cls, done: Done) -> Record:
        """The record of a finished task. Raises ValueError for details that JSON cannot hold."""
        task, evaluation = done.task, done.evaluation
        return cls(
            architecture=task.architecture,
            fitness=evaluation.fitness,
            generation=task.generation,
            index=task.index,
            origin=task.origin,
            seconds=done.seconds,
            details=plain_json(evaluation.details),
            cost=evaluation.cost,
        )


def history_of(records: Iterable[Record]) -> list[tuple[Architecture, float]]:
    """(architecture, fitness) of every record, in the given order."""
    return [(record.architecture, record.fitness) for record in records]


def best_record(records: Iterable[Record]) -> Record | None:
    """The record with the highest fitness; the first of equals. None if no fitness is defined."""
    best: Record | None = None
    for record in records:
        if not math.isnan(record.fitness) and (best is None or record.fitness > best.fitness):
            best = record
    return best


def mean_fitness(records: Iterable[Record]) -> float:
    """Mean of the defined fitness values, NaN without any."""
    values = [record.fitness for record in records if not math.isnan(record.fitness)]
    return math.fsum(values) / len(values) if values else math.nan
