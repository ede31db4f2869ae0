"""Settings and results of an evaluation: per case, pooled, and summarised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.evaluation.confusion import Counts

HD95_ONE_EMPTY = ("undefined", "diagonal")
PROTOCOLS = {
    "paper": "the pixels (voxels) of all cases in one confusion matrix per class; mIoU is the IoU of that class; mean: "
    "over the foreground classes",
    "per-case": "every metric in every case, then mean with bootstrap confidence interval (BCa, cases resampled), "
    "median and SD over the cases in which it is defined; mean: of the foreground classes' means",
}
MEAN_ROW = "mean"


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of an evaluation; InputError for values that make no sense.

    confidence: level of the intervals, between 0 and 1. tolerance: NSD's, in mm (pixels or voxels where files have no
    spacing). surface: whether to compute the metrics of masks, HD95 and NSD. hd95_one_empty: HD95 where exactly one of
    truth and prediction is empty: "undefined" (NaN, left out and counted) or "diagonal" (the image's, the worst
    possible). resamples, seed: of the bootstrap.
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
    """One class in one case: its pixels counted, and the value of each metric that was computed, by its key."""

    counts: Counts
    values: Mapping[str, float]

    def value(self, metric: str) -> float:
        """The value of a metric, NaN where it is undefined or was not computed."""
        return self.values.get(metric, math.nan)

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

    counts: per class name. scores: per class name and metric (POOLED_METRICS), fractions. mean: of the classes, NaN
    left out.
    """

    counts: Mapping[str, Counts]
    scores: Mapping[str, Mapping[str, float]]
    mean: Mapping[str, float]

    @property
    def rows(self) -> dict[str, Mapping[str, float]]:
        """Scores by the names of a table's rows; the mean is a row where there are several classes."""
        return {**self.scores, MEAN_ROW: self.mean} if len(self.scores) > 1 else dict(self.scores)


@dataclass(frozen=True)
class Summary:
    """One metric over cases. All values are over the `defined` cases; NaN where there are too few.

    low, high: bootstrap confidence interval of the mean, NaN if all values are the same. sd: with n-1. undefined: cases
    left out. one_empty: cases in which exactly one of truth and prediction is empty; the metric's definition says
    whether it is defined there.
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
    """Metrics summarised over the cases. summaries: per class name and metric. mean: per metric, over the classes.

    The mean of `mean` is the mean of the classes' means (nnU-Net's foreground_mean), with its interval from resampled
    cases; its median, SD, minimum and maximum are those of the cases' means over their defined classes.
    """

    summaries: Mapping[str, Mapping[str, Summary]]
    mean: Mapping[str, Summary]

    @property
    def rows(self) -> dict[str, Mapping[str, Summary]]:
        """Summaries by the names of a table's rows; the mean is a row where there are several classes."""
        return {**self.summaries, MEAN_ROW: self.mean} if len(self.summaries) > 1 else dict(self.summaries)


@dataclass(frozen=True)
class Evaluation:
    """Everything about one folder of predictions.

    classes: in the order of dataset.json. metrics: the keys of METRICS that were computed per case. unit: of lengths,
    "mm", or "px" or "voxels" for files without spacing. dataset_json: None if there was none. notes: sentences that a
    reader has to know whatever is shown. metric_notes: those on a metric's values in the cases, by its key.
    protocol_notes: those that belong to one protocol ("paper", "per-case").
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
    metric_notes: Mapping[str, tuple[str, ...]]
    protocol_notes: Mapping[str, tuple[str, ...]]

    @property
    def pixels(self) -> str:
        """The images' elements: "pixels" or "voxels"."""
        return pixels(self.cases)

    def notes_for(self, protocols: Sequence[str], metrics: Sequence[str] | None = None) -> tuple[str, ...]:
        """The notes that concern what these protocols show. metrics: keys of those shown per case, None: all."""
        found = list(self.notes)
        for name in protocols:
            if name == "per-case":
                shown = self.metrics if metrics is None else metrics
                found += [note for key in shown for note in self.metric_notes.get(key, ())]
            found += self.protocol_notes[name]
        return tuple(found)


def pixels(cases: Sequence[CaseResult]) -> str:
    """The images' elements: "voxels" if there are volumes among the cases, else "pixels"."""
    return "voxels" if any(len(case.shape) > 2 for case in cases) else "pixels"
