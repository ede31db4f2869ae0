"""Tables and sentences that show a comparison in a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from nnunetv2_slicemamba.common.console import styled
from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.common.shell import quoted, shell_line
from nnunetv2_slicemamba.comparison.arms import CHOSEN_BY_SEARCH, SEARCHED, slicing_text
from nnunetv2_slicemamba.comparison.results import MARGIN, ComparisonResult
from nnunetv2_slicemamba.comparison.statistics import Difference
from nnunetv2_slicemamba.comparison.trainings import FINISHED, ArmTraining
from nnunetv2_slicemamba.slicing.file import SlicingFile
from nnunetv2_slicemamba.slicing.measured_on import HOLDOUT

OPTIMISTIC = (
    "The search chose on this fold's validation cases, so the Dice of what it chose is optimistic on them: judge on "
    "held-out cases."
)


def show_trainings(trainings: Sequence[ArmTraining], device: str, console: Console) -> None:
    """Prints what would be run, as commands that can be pasted into a shell."""
    for training in trainings:
        console.print(styled(training.name, "bold").append(f": {training.state}"))
        if training.state != FINISHED:
            changed = " ".join(f"{key}={quoted(value)}" for key, value in training.variables().items())
            command = shell_line("nnUNetv2_train", *training.arguments(device))
            console.print(styled(f"  {changed} {command}"), soft_wrap=True)


def show_result(result: ComparisonResult, title: str, console: Console) -> None:
    """Prints the table of arms, and what may be concluded from it."""
    table = Table(title=title, title_justify="left")
    table.add_column("arm")
    table.add_column("thickness of the blocks")
    table.add_column("trainings", justify="right")
    table.add_column("Dice", justify="right")
    table.add_column("SD", justify="right")
    best = result.best_control
    heading = f"less {best} (95 % CI over cases)" if best else "less the best control"
    table.add_column(heading, justify="right")
    for row in result.arms:
        table.add_row(
            row.arm.name,
            slicing_text(row.slicing),
            str(len(row.dice)),
            dice(row.mean),
            dice(row.spread),
            "best control" if row.arm.name == best else shown_difference(row.difference),
        )
    console.print(table)
    for sentence in sentences(result):
        console.print(sentence, highlight=False)


def sentences(result: ComparisonResult) -> list[str]:
    """Conclusions that the table allows, in words."""
    said = []
    if result.cases:
        said.append(
            f"Dice: mean foreground Dice of {count(len(result.cases), 'validation case')}; SD: between trainings."
        )
    noise, freedom = result.noise
    if freedom:
        said.append(
            f"Noise: trainings of the same arm differ by an SD of {noise:.4f} ({freedom} degrees of freedom); the "
            "intervals hold the choice of cases only."
        )
    elif result.finished:
        said.append(
            "Every arm has one training, so how much repeating one changes its Dice is unknown, and the intervals hold "
            "the choice of cases only: --repeats 2 or more shows it."
        )
    for name, found in (("Random slicings", result.random), ("Random slicings at the budget", result.at_budget)):
        if found is not None:
            said.append(f"{name}: Dice {found[0]:.4f}, SD {found[1]:.4f} between slicings.")
    if any(row.arm.kind in CHOSEN_BY_SEARCH and not on_holdout(row.content) for row in result.finished):
        said.append(OPTIMISTIC)
    tested = [row for row in result.finished if row.equivalence is not None]
    if tested:
        shown = ", ".join(row.arm.name for row in tested if row.equivalence and row.equivalence.is_shown)
        said.append(
            f"Equivalent to {result.best_control} within {MARGIN:g} (two one-sided tests at 5 %, over cases): "
            f"{shown or 'none'}."
        )
    searched = next((row for row in result.finished if row.arm.kind == SEARCHED), None)
    controls = [row for row in result.finished if row.arm.is_control]
    if searched and controls:
        above = sum(searched.mean > row.mean for row in controls)
        mean = math.fsum(row.mean for row in controls) / len(controls)
        said.append(
            f"'{SEARCHED}' is above {above} of {len(controls)} controls, and {searched.mean - mean:+.4f} from their "
            "mean (the best of several is partly lucky)."
        )
    return said


def on_holdout(content: SlicingFile) -> bool:
    """True if the search chose on cases set aside for it, which leaves the validation cases unseen."""
    return content.measured_on is not None and content.measured_on.kind == HOLDOUT


def dice(value: float) -> str:
    """Dice with four digits, "-" for NaN."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def shown_difference(difference: Difference | None) -> str:
    """Difference and its interval, "-" for None."""
    if difference is None:
        return "-"
    interval = "no interval" if math.isnan(difference.low) else f"{difference.low:+.4f} to {difference.high:+.4f}"
    return f"{difference.mean:+.4f} ({interval})"
