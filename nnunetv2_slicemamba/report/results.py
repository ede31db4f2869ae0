"""Dice of validations and predictions, per case and class."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.json_reading import JsonFileError
from nnunetv2_slicemamba.common.nnunet_files import SUMMARY_JSON

from .dataset import DatasetFacts, Labels

COUNTS = ("TP", "FP", "FN", "TN")


class SummaryError(ValueError):
    """A summary.json cannot be read; the message names the file and the remedy."""


@dataclass(frozen=True)
class CaseDice:
    """A case's Dice per class, NaN where neither truth nor prediction has the class.

    file_name: of the prediction.
    """

    case: str
    file_name: str
    per_class: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the classes that are defined; NaN without any."""
        return mean_of(self.per_class)


@dataclass(frozen=True)
class DiceSummary:
    """Dice of a fold or a test set: its cases, the mean of each class over them, and the mean of those.

    The means are those of nnU-Net's summary.json: `foreground` is the mean of the classes' means.
    """

    cases: tuple[CaseDice, ...]
    per_class: tuple[float, ...]
    foreground: float


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) of n values; the latter NaN for one value, both for none."""

    mean: float
    deviation: float
    n: int


def spread(values: Iterable[float]) -> Spread:
    """Mean and spread of the values that are numbers."""
    known = [value for value in values if not math.isnan(value)]
    deviation = statistics.stdev(known) if len(known) > 1 else math.nan
    return Spread(mean_of(known), deviation, len(known))


def mean_of(values: Iterable[float]) -> float:
    """Mean of the values that are numbers, NaN without any."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def key_of(labels: Labels, known: Collection[str]) -> str:
    """Name of a class in nnU-Net's summary.json: "1", or for regions the tuple's text, "(1, 2)".

    known: the names there. A region of one label is named "2" if dataset.json gives a number, "(2,)" if a list.
    """
    single = str(labels[0])
    return single if len(labels) == 1 and single in known else str(labels)


def read_summary(file: Path, dataset: DatasetFacts) -> DiceSummary:
    """Reads a summary.json as nnU-Net's evaluation writes it. Raises SummaryError for anything else."""
    try:
        return scores_of(SUMMARY_JSON.read(file), dataset)
    except JsonFileError as error:
        raise SummaryError(str(error)) from error
    except KeyError as error:
        raise SummaryError(
            f"{file} is not a summary of {dataset.name}: it has no {error}. {SUMMARY_JSON.remedy}"
        ) from error


def scores_of(content: Mapping[str, Any], dataset: DatasetFacts) -> DiceSummary:
    """Scores from the content of a summary.json; KeyError if a class of the dataset is not in it."""
    keys = [key_of(labels, content["mean"]) for _, labels in dataset.classes]
    cases = []
    for entry in content["metric_per_case"]:
        name = Path(entry["prediction_file"]).name
        metrics = entry["metrics"]
        per_class = tuple(number(metrics[key]["Dice"]) for key in keys)
        # the paper's metrics are made of these: what lacks them is no summary either
        [int(metrics[key][count]) for key in keys for count in COUNTS]
        cases.append(CaseDice(name.removesuffix(dataset.file_ending), name, per_class))
    per_class = tuple(number(content["mean"][key]["Dice"]) for key in keys)
    ordered = tuple(sorted(cases, key=lambda case: case.case))
    return DiceSummary(ordered, per_class, number(content["foreground_mean"]["Dice"]))


def number(value: Any) -> float:
    """A JSON number; null, which some writers put for NaN, is NaN."""
    return math.nan if value is None else float(value)


def typical_cases(cases: Sequence[CaseDice]) -> tuple[tuple[str, CaseDice], ...]:
    """("best" | "median" | "worst", case) by mean Dice; of equals the first by name. Fewer than three if there are.

    The median of an even number is the better of the two in the middle, so that it is a case that exists.
    """
    ranked = sorted((case for case in cases if not math.isnan(case.mean)), key=lambda case: (-case.mean, case.case))
    if not ranked:
        return ()
    chosen = {"best": 0, "median": (len(ranked) - 1) // 2, "worst": len(ranked) - 1}
    seen: dict[int, str] = {}
    for name, at in chosen.items():
        seen.setdefault(at, name)
    return tuple((name, ranked[at]) for at, name in seen.items())
