"""Steps of a command one after another: how many there are, which is at work, and how it gets on."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console

from nnunetv2_slicemamba.common.commands import CommandError
from nnunetv2_slicemamba.common.console import styled
from nnunetv2_slicemamba.common.durations import duration_text
from nnunetv2_slicemamba.common.verbosity import is_verbose
from nnunetv2_slicemamba.common.watch import SILENCE_SECONDS, Watch, WatchAll
from nnunetv2_slicemamba.pipeline.fold_steps import RunSettings, steps_of_fold, summary_dice, take
from nnunetv2_slicemamba.pipeline.states import FINISHED, WAITING, StepState, in_order
from nnunetv2_slicemamba.pipeline.step import Command, Finished, Step, is_finished
from nnunetv2_slicemamba.pipeline.training_watch import TrainingWatch
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder
from nnunetv2_slicemamba.planning.selection import Selection


class StepsInARow:
    """The steps of a command one after another, each of which is told with its number before it begins.

    total: number of all steps. silence: seconds after which a log file gets a line in any case.
    """

    def __init__(self, total: int, console: Console, silence: float = SILENCE_SECONDS) -> None:
        self.total, self.console, self.silence = total, console, silence
        self.number = 0

    def begin(self, what: str) -> None:
        """Tells the next step."""
        self.number += 1
        self.console.print(styled(f"Step {self.number} of {self.total}: {what}", "bold"), soft_wrap=True)

    def begin_step(self, step: Step) -> Command | Finished:
        """Tells the next step, and whether it was finished before; returns what it needs."""
        needed = step.look()
        self.begin(f"{step.title}: {needed.text}" if isinstance(needed, Finished) else step.title)
        return needed

    def take(self, step: Step) -> None:
        """Takes the next step, or says that it was finished before. Raises CommandError if it fails."""
        needed = self.begin_step(step)
        if isinstance(needed, Finished):
            return
        began = time.monotonic()
        try:
            take(needed, self.console, self.watch(step))
        except CommandError as error:
            raise CommandError(f"{step.title}: {error}") from error
        dice = None if step.training is None else summary_dice(step.training / "validation" / "summary.json")
        self.end(step, began, "" if dice is None else f", validation Dice {dice:.4f}")

    def end(self, step: Step, began: float, result: str = "") -> None:
        """Tells that a step has ended, with its time. began: of time.monotonic."""
        told = f"{step.title}: finished in {duration_text(time.monotonic() - began)}{result}"
        self.console.print(styled(told), soft_wrap=True)

    def watch(self, step: Step) -> Watch | None:
        """What shows the output of a step's command; None for all of it, as it comes."""
        if is_verbose():
            return None
        if step.training is not None:
            return TrainingWatch(step.training, self.console, self.silence)
        if step.kind in ("search", "evaluate", "report"):
            # commands of ours: what they print is meant to be read, and they have bars of their own on a terminal
            return None if self.console.is_terminal else WatchAll(self.console, self.silence)
        return self.latest()

    def latest(self) -> Watch | None:
        """What shows the latest line of a command's output; None for all of it, as it comes."""
        return None if is_verbose() else Watch(self.console, self.silence)


def run_fold(selection: Selection, settings: RunSettings, steps: StepsInARow) -> float:
    """Supernet and search if they are asked for, training and validation of one fold, without what is finished.

    Returns the fold's mean validation Dice. Raises CommandError if a step fails, InputError if a finished final
    training used another slicing than the fold's file holds now.
    """
    for step in steps_of_fold(selection, settings):
        steps.take(step)
    return summary_dice(FoldFolder(selection, settings.trainer).summary)


def totals(steps: Sequence[Step]) -> str:
    """How many steps there are and how many of them are finished, in words."""
    states = [StepState(step, FINISHED if is_finished(step) else WAITING) for step in steps]
    finished = sum(one.state == FINISHED for one in in_order(states))
    before = f"{finished} finished before, {len(steps) - finished} to do" if finished else "none finished before"
    return f"{len(steps)} {'step' if len(steps) == 1 else 'steps'}, {before}"
