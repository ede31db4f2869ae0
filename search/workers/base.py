"""Who evaluates a generation's architectures?"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from nnunetv2_slicemamba.search.records import Evaluation
from nnunetv2_slicemamba.slicing.candidates import Architecture


@dataclass(frozen=True)
class Task:
    """An architecture to evaluate. index: its position within the generation."""

    generation: int
    index: int
    architecture: Architecture


@dataclass(frozen=True)
class Done:
    """A finished task. seconds: duration of the evaluation. recovered: an earlier run made it."""

    index: int
    evaluation: Evaluation
    seconds: float
    recovered: bool = False


class Workers(ABC):
    """Evaluates tasks, in any order, and gives each result as soon as it is there.

    journaled: whether a journal has each result before it is given.
    """

    journaled = False

    @abstractmethod
    def __call__(self, tasks: Sequence[Task], go_on: Callable[[], bool]) -> Iterator[Done]:
        """The tasks' results as they are finished. Begins no task once go_on() is false; gives all that it began."""


# Gives further architectures, none if there are none.
More = Callable[[], Sequence[Architecture]]


def no_more() -> Sequence[Architecture]:
    return ()


class EvaluatesMany(Protocol):
    """What evaluates architectures faster together than one by one, such as SupernetFold."""

    def evaluate(
        self, architectures: Sequence[Architecture], go_on: Callable[[], bool], more: More = no_more
    ) -> Iterator[tuple[int, Evaluation, float]]:
        """(position, evaluation, seconds) as they are finished.

        more: asked when all architectures have been begun, so that a device need not wait for the next; what it gives
        is evaluated too, at the positions that follow.
        """


class InTurn(Workers):
    """One architecture after the other, in the order of the generation."""

    def __init__(self, evaluate: Callable[[Architecture], Evaluation]) -> None:
        self._evaluate = evaluate

    def __call__(self, tasks: Sequence[Task], go_on: Callable[[], bool]) -> Iterator[Done]:
        for task in tasks:
            if not go_on():
                return
            started = time.perf_counter()
            evaluation = self._evaluate(task.architecture)
            if not isinstance(evaluation, Evaluation):
                raise TypeError(f"evaluate returned a {type(evaluation).__name__}, it must return an Evaluation")
            yield Done(task.index, evaluation, time.perf_counter() - started)


class Together(Workers):
    """A generation at once, in this process, in the order that its evaluator likes best."""

    def __init__(self, evaluator: EvaluatesMany) -> None:
        self._evaluator = evaluator

    def __call__(self, tasks: Sequence[Task], go_on: Callable[[], bool]) -> Iterator[Done]:
        architectures = [task.architecture for task in tasks]
        for position, evaluation, seconds in self._evaluator.evaluate(architectures, go_on):
            yield Done(tasks[position].index, evaluation, seconds)
