"""What does an evaluation say? Settings, results per case, pooled results and summaries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.evaluation.confusion import Counts

HD95_ONE_EMPTY = ("undefined", "diagonal")


@dataclass(frozen=True)
class EvaluationSettings:
    """How to evaluate; InputError for values that make no sense.

    confidence: level of the intervals, between 0 and 1. tolerance: NSD's, in mm (pixels or voxels where files have no
    spacing). surface: whether to compute HD95 and NSD. hd95_one_empty: what HD95 is where exactly one of truth and
    prediction is empty: "undefined" (NaN, left out and counted) or "diagonal" (the image's, the worst possible).
    resamples, seed: of the bootstrap.
    """

    confidence: float = 0.95
    tolerance: float = 2.0
    surface: bool = True
    hd95_one_empty: str = "undefined"
    resamples: int = 9999
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise InputError(f"the confidence is {self.confidence}, it must lie between 0 and 1; 0.95 is usual")
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise InputError(f"the tolerance is {self.tolerance}, it must be 0 or a positive length; 2 mm is usual")
        if self.hd95_one_empty not in HD95_ONE_EMPTY:
            raise InputError(
                f"HD95 of one empty mask cannot be {self.hd95_one_empty!r}; give one of {', '.join(HD95_ONE_EMPTY)}"
            )
        if self.resamples < 100:
            raise InputError(f"{self.resamples} bootstrap resamples give no interval; 9999 are usual, 100 the least")
        if self.seed < 0:
            raise InputError(f"the seed is {self.seed}, it must not be negative")


@dataclass(frozen=True)
class ClassLabel:
    """A foreground class or region: its name, its labels, and nnU-Net's key for it in summary.json."""

    name: str
    labels: tuple[int, ...]
    key: str


@dataclass(frozen=True)
class Scores:
    """One class in one case. hd95: in the evaluation's unit; nsd: 0..1; both NaN where undefined or not computed."""

    counts: Counts
    hd95: float = math.nan
    nsd: float = math.nan

    def value(self, metric: str) -> float:
        """The value of one of METRICS, NaN where it is undefined."""
        return float(getattr(self if metric in ("hd95", "nsd") else self.counts, metric))

    @property
    def both_empty(self) -> bool:
        return self.counts.truth_is_empty and self.counts.prediction_is_empty

    @property
    def one_empty(self) -> bool:
        return self.counts.truth_is_empty != self.counts.prediction_is_empty


@dataclass(frozen=True)
class CaseResult:
    """One case: its files, size in pixels and spacing per axis (both without axes of one pixel), scores per class."""

    case: str
    prediction: Path
    truth: Path
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    scores: Mapping[str, Scores]


@dataclass(frozen=True)
class PaperResult:
    """The published protocol: one confusion matrix per class over the pixels of all cases.

    counts: per class name. scores: per class name and metric (PAPER_METRICS), fractions. mean: of the classes, NaN left
    out.
    """

    counts: Mapping[str, Counts]
    scores: Mapping[str, Mapping[str, float]]
    mean: Mapping[str, float]


@dataclass(frozen=True)
class Summary:
    """One metric over cases. All values are over the `defined` cases; NaN where there are too few.

    low, high: bootstrap confidence interval of the mean, NaN if all values are the same. sd: with n-1. undefined: cases
    left out. one_empty: cases in which exactly one of truth and prediction is empty; HD95 leaves them out unless
    settings.hd95_one_empty is "diagonal", other metrics count them (Dice, IoU and NSD as 0).
    """

    cases: int
    defined: int
    undefined: int
    one_empty: int
    mean: float
    low: float
    high: float
    median: float
    sd: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class PerCaseResult:
    """summaries: per class name and metric. mean: per metric, over the classes.

    The mean of `mean` is the mean of the classes' means (nnU-Net's foreground_mean), with its interval from resampled
    cases; its median, SD, minimum and maximum are those of the cases' means over their defined classes.
    """

    summaries: Mapping[str, Mapping[str, Summary]]
    mean: Mapping[str, Summary]


@dataclass(frozen=True)
class Evaluation:
    """Everything about one folder of predictions.

    classes: in the order of dataset.json. metrics: the keys of METRICS that were computed. unit: of HD95 and tolerance,
    "mm", or "px" or "voxels" for files without spacing. dataset_json: None if there was none. notes: what a reader has
    to know whatever is shown, one sentence each. protocol_notes: what belongs to one protocol ("paper", "per-case").
    """

    predictions: Path
    truth: Path
    dataset_json: Path | None
    settings: EvaluationSettings
    classes: tuple[ClassLabel, ...]
    ignore_label: int | None
    metrics: tuple[str, ...]
    unit: str
    cases: tuple[CaseResult, ...]
    paper: PaperResult
    per_case: PerCaseResult
    notes: tuple[str, ...]
    protocol_notes: Mapping[str, tuple[str, ...]]

    @property
    def pixels(self) -> str:
        """What the images consist of: "pixels" or "voxels"."""
        return pixels(self.cases)

    def notes_for(self, protocols: Sequence[str]) -> tuple[str, ...]:
        """The notes that concern what these protocols show."""
        return (*self.notes, *(note for name in protocols for note in self.protocol_notes.get(name, ())))


def pixels(cases: Sequence[CaseResult]) -> str:
    """Says "voxels" if there are volumes among the cases, else "pixels"."""
    return "voxels" if any(len(case.shape) > 2 for case in cases) else "pixels"
