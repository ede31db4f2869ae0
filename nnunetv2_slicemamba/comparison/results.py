"""Results of a comparison's arms, from nnU-Net's summary.json files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.json_reading import JsonFileError
from nnunetv2_slicemamba.common.nnunet_files import SUMMARY_JSON
from nnunetv2_slicemamba.comparison.arms import AT_BUDGET, RANDOM, SEARCHED, Arm, slicing_text
from nnunetv2_slicemamba.comparison.folder import ComparisonFolder
from nnunetv2_slicemamba.comparison.statistics import (
    DiceTable,
    Difference,
    Equivalence,
    equivalence,
    foreground_dice,
    paired_difference,
    pooled_spread,
    spread,
)
from nnunetv2_slicemamba.comparison.trainings import FINISHED, state_of
from nnunetv2_slicemamba.slicing.candidates import Slicing
from nnunetv2_slicemamba.slicing.file import SlicingFile, read_slicing_file

CONFIDENCE = 0.95
MARGIN = 0.005  # Dice that arms may differ by and still be called equivalent

_REMEDY = "Delete it, and the same command validates again"


@dataclass(frozen=True)
class ArmResult:
    """Result of one arm.

    dice: of every finished training, mean foreground Dice of nnU-Net's validation. table: (trainings, classes, cases),
    None without a finished training. difference, equivalence: to the best control, None if there is none.
    """

    arm: Arm
    content: SlicingFile
    dice: tuple[float, ...]
    table: DiceTable | None
    difference: Difference | None = None
    equivalence: Equivalence | None = None

    @property
    def slicing(self) -> Slicing:
        """Thickness per block."""
        return self.content.slicing

    @property
    def mean(self) -> float:
        """Mean Dice of the trainings; NaN without any."""
        return math.fsum(self.dice) / len(self.dice) if self.dice else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation of the trainings' Dice; NaN for fewer than two."""
        return spread(self.dice)


@dataclass(frozen=True)
class ComparisonResult:
    """Result of a comparison.

    arms: in the order in which they were named. cases, classes: of the validation. best_control: name of the control
    with the highest mean, None without one. noise: standard deviation between trainings of the same arm, pooled over
    the arms, and its degrees of freedom. random, at_budget: mean and standard deviation over the random arms, and over
    those at the budget, None for fewer than two.
    """

    arms: tuple[ArmResult, ...]
    cases: tuple[str, ...]
    classes: tuple[str, ...]
    best_control: str | None
    noise: tuple[float, int]
    random: tuple[float, float] | None
    at_budget: tuple[float, float] | None

    @property
    def finished(self) -> tuple[ArmResult, ...]:
        """Arms with a finished training."""
        return tuple(arm for arm in self.arms if arm.dice)

    def as_dict(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        return {
            "dice": "mean foreground Dice of nnU-Net's validation of the fold",
            "confidence": CONFIDENCE,
            "interval": "paired BCa bootstrap over the validation cases",
            "cases": self.cases,
            "classes": self.classes,
            "best_control": self.best_control,
            "noise_sd": self.noise[0],
            "noise_degrees_of_freedom": self.noise[1],
            "random_arms": _spread_entry(self.random),
            "random_at_budget_arms": _spread_entry(self.at_budget),
            "arms": [_entry(arm) for arm in self.arms],
        }


def _spread_entry(found: tuple[float, float] | None) -> dict[str, float] | None:
    return None if found is None else {"mean": found[0], "sd": found[1]}


def _entry(result: ArmResult) -> dict[str, Any]:
    difference = result.difference
    return {
        "arm": result.arm.name,
        "kind": result.arm.kind,
        "is_control": result.arm.is_control,
        "slicing": result.slicing,
        "slicing_in_words": slicing_text(result.slicing),
        "dice_per_training": result.dice,
        "dice_mean": result.mean,
        "dice_sd": result.spread,
        "difference_to_best_control": None
        if difference is None
        else {"mean": difference.mean, "low": difference.low, "high": difference.high},
        "equivalence_to_best_control": None
        if result.equivalence is None
        else {**asdict(result.equivalence), "is_shown": result.equivalence.is_shown},
        "dice_per_training_class_case": result.table,
    }


def collect(folder: ComparisonFolder, names: Sequence[str] | None = None) -> ComparisonResult:
    """Result of the finished trainings in a comparison's folder.

    names: arms to show, None for all. Raises InputError if there is no comparison, or trainings that cannot be
    compared: with other cases or classes, plans or slicings.
    """
    if not folder.arms():
        raise InputError(f"there is no comparison in {folder.root}; 'slicemamba compare' makes one")
    folder.check_settings()
    known = {arm.name: arm for arm in folder.arms()}
    missing = [name for name in names or () if name not in known]
    if missing:
        raise InputError(f"{folder.root} has no arm {', '.join(missing)}; it has: {', '.join(known)}")
    rows: list[ArmResult] = []
    reference: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    for name in names or known:
        content = read_slicing_file(folder.slicing_file(name))
        tables, dice = [], []
        for repeat in folder.repeats(name):
            fold_folder = folder.fold_folder(name, repeat)
            if state_of(fold_folder, folder, content.slicing) != FINISHED:
                continue
            file = fold_folder / "validation" / "summary.json"
            cases, classes, table = read_cases(file)
            reference = reference or (cases, classes)
            if (cases, classes) != reference:
                raise InputError(
                    f"{file} is of {len(cases)} cases of the classes {', '.join(classes)}, other arms are of "
                    f"{len(reference[0])} cases of {', '.join(reference[1])}; only trainings with the same validation "
                    "cases can be compared: move it away to train it anew"
                )
            tables.append(table)
            dice.append(foreground_dice(table[None]))
        rows.append(ArmResult(known[name], content, tuple(dice), np.stack(tables) if tables else None))
    return _compared(rows, *(reference or ((), ())))


def _compared(rows: Sequence[ArmResult], cases: tuple[str, ...], classes: tuple[str, ...]) -> ComparisonResult:
    controls = [row for row in rows if row.arm.is_control and row.dice]
    best = max(controls, key=lambda row: row.mean, default=None)
    compared = []
    for row in rows:
        other = row is not best and best is not None and row.table is not None
        difference = alike = None
        if other:
            assert best is not None
            assert best.table is not None
            assert row.table is not None
            difference = paired_difference(row.table, best.table, CONFIDENCE)
            alike = equivalence(row.table, best.table, MARGIN)
        compared.append(ArmResult(row.arm, row.content, row.dice, row.table, difference, alike))
    return ComparisonResult(
        arms=tuple(sorted(compared, key=lambda row: row.arm.kind != SEARCHED)),
        cases=cases,
        classes=classes,
        best_control=best.arm.name if best else None,
        noise=pooled_spread([row.dice for row in rows if row.dice]),
        random=_over_slicings(rows, RANDOM),
        at_budget=_over_slicings(rows, AT_BUDGET),
    )


def _over_slicings(rows: Sequence[ArmResult], kind: str) -> tuple[float, float] | None:
    """Mean and standard deviation over the arms of a kind; None for fewer than two."""
    drawn = [row.mean for row in rows if row.arm.kind == kind and row.dice]
    return (float(np.mean(drawn)), spread(drawn)) if len(drawn) > 1 else None


def read_cases(file: Path) -> tuple[tuple[str, ...], tuple[str, ...], DiceTable]:
    """Cases, classes and Dice (classes, cases) of a summary.json as nnU-Net writes it; cases in alphabetical order.

    NaN where neither truth nor prediction has the class. Raises InputError if it is none.
    """
    entries: Sequence[Mapping[str, Any]] = SUMMARY_JSON.read(file, _REMEDY)["metric_per_case"]
    try:
        by_name = {Path(entry["reference_file"]).name: entry["metrics"] for entry in entries}
        cases = tuple(sorted(by_name))
        classes = tuple(by_name[cases[0]])
        table = np.array([[float(by_name[case][one]["Dice"]) for case in cases] for one in classes])
    except (LookupError, TypeError) as error:  # no case, or not all with the same classes
        reason = f"is not {SUMMARY_JSON.name} ({type(error).__name__}: {error})"
        raise JsonFileError(file, reason, _REMEDY) from error
    return cases, classes, table
