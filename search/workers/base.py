"""Workers of one process: what evaluates a generation's architectures."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from nnunetv2_slicemamba.search.records import Done, Evaluation, Task
from nnunetv2_slicemamba.slicing.candidates import Architecture


class Workers(ABC):
    """Evaluates tasks, in any order, and gives each result as soon as it is there."""

    @abstractmethod
    def __call__(self, tasks: Sequence[Task], go_on: Callable[[], bool]) -> Iterator[Done]:
        """The tasks as they are finished. Begins none once go_on() is false; gives all that it began."""


# Gives further tasks, none if there are none.
More = Callable[[], Sequence[Task]]


def no_more() -> Sequence[Task]:
    return ()


class BatchEvaluator(Protocol):
    """An evaluator to which many architectures are faster together than one by one, such as SupernetFold."""

    def evaluate(self, tasks: Sequence[Task], go_on: Callable[[], bool], more: More = no_more) -> Iterator[Done]:
        """The tasks as they are finished.

        more: asked when all tasks have been begun, so that a device need not wait for the next; what it gives is
        evaluated too.
        """


class SerialWorkers(Workers):
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
            yield Done(task, evaluation, time.perf_counter() - started)


class BatchedWorkers(Workers):
    """A generation at once, in this process, in the order that its evaluator likes best."""

    def __init__(self, evaluator: BatchEvaluator) -> None:
        self._evaluator = evaluator

    def __call__(self, tasks: Sequence[Task], go_on: Callable[[], bool]) -> Iterator[Done]:
        return self._evaluator.evaluate(tasks, go_on)
