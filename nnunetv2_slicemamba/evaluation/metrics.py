"""Registry of the metrics: each with its function, unit, direction, and what a reader must know of it.

A new metric is one more entry of METRICS. JSON, terminal table, LaTeX, help, the report's pooled table and the notes
follow from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from nnunetv2_slicemamba.evaluation.confusion import Counts
from nnunetv2_slicemamba.evaluation.masks import Masks
from nnunetv2_slicemamba.evaluation.results import EvaluationSettings, Summary
from nnunetv2_slicemamba.evaluation.surface import hd95, nsd

SHARE = "share"  # 0..1, shown in percent
LENGTH = "length"  # in the unit of the files' spacing: mm, or pixels or voxels where they have none
MISSING = "-"  # what stands in a table for an undefined value


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that says how alike truth and prediction are in one class; NaN where it is undefined.

    key: its name in results and JSON. title: its name in tables. definition: one sentence, empty masks included.
    unit: SHARE, LENGTH, or a text to stand beside the title, e.g. "mL". digits: shown after the decimal point.
    in_short_tables: whether it is also shown where room is scarce, in LaTeX and for many classes.
    setting: text beside the title in place of the unit, from the settings and the unit of lengths.
    note: sentence on its values in the cases, or "", from a class's name, the class's summary and the settings.
    """

    key: str
    title: str
    definition: str
    unit: str
    higher_is_better: bool
    digits: int = 2
    in_short_tables: bool = True
    setting: Callable[[EvaluationSettings, str], str] | None = None
    note: Callable[[str, Summary, EvaluationSettings], str] | None = None

    def head(self, settings: EvaluationSettings, unit: str) -> str:
        """Title with the unit, or the setting, that belongs to it. unit: of lengths in this evaluation."""
        if self.setting is not None:
            beside = self.setting(settings, unit)
        else:
            beside = {SHARE: "", LENGTH: unit}.get(self.unit, self.unit)
        return f"{self.title} ({beside})" if beside else self.title

    def shown(self, value: float) -> str:
        """A value as text; shares in percent."""
        if math.isnan(value):
            return MISSING
        return f"{100 * value if self.unit == SHARE else value:.{self.digits}f}"


@dataclass(frozen=True, kw_only=True)
class CountMetric(Metric):
    """A metric of pixel counts.

    per_case: whether it is computed in each case. pooled: whether it is computed from the counts of all cases together,
    as the paper does it; then it must be a share. pooled_title: its name there, if it is another one.
    """

    function: Callable[[Counts], float]
    per_case: bool = True
    pooled: bool = False
    pooled_title: str = ""

    def __post_init__(self) -> None:
        if self.pooled and self.unit != SHARE:
            raise ValueError(f"the metric {self.key!r} is pooled and no share; pooled tables are in percent")

    @property
    def pooled_head(self) -> str:
        return self.pooled_title or self.title


@dataclass(frozen=True, kw_only=True)
class MaskMetric(Metric):
    """A metric of the two masks of a class, computed in each case unless --no-surface is given."""

    function: Callable[[Masks, EvaluationSettings], float]


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan


def _note_on_hd95(name: str, summary: Summary, settings: EvaluationSettings) -> str:
    of_cases = f"{summary.one_empty} of {summary.cases} cases"
    if not summary.one_empty:
        return ""
    if settings.hd95_one_empty == "diagonal":
        return f"HD95 of {name} counts {of_cases} as the image's diagonal"
    return (
        f"HD95 of {name} leaves out {of_cases} in which only the truth or only the prediction is empty, which flatters "
        "it; --hd95-one-empty diagonal counts each as the image's diagonal"
    )


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        CountMetric(
            key="dice",
            title="Dice",
            pooled=True,
            pooled_title="DSC",
            definition="2TP/(2TP+FP+FN); undefined if truth and prediction are empty, 0 if one is",
            unit=SHARE,
            higher_is_better=True,
            function=lambda n: _ratio(2 * n.tp, 2 * n.tp + n.fp + n.fn),
        ),
        CountMetric(
            key="iou",
            title="IoU",
            pooled=True,
            pooled_title="mIoU",  # the paper's name for the IoU of the foreground (see confusion.py)
            definition="TP/(TP+FP+FN); undefined if truth and prediction are empty, 0 if one is",
            unit=SHARE,
            higher_is_better=True,
            function=lambda n: _ratio(n.tp, n.tp + n.fp + n.fn),
        ),
        CountMetric(
            key="accuracy",
            title="Acc",
            pooled=True,
            definition="(TP+TN)/(TP+TN+FP+FN), this class against all others",
            unit=SHARE,
            higher_is_better=True,
            function=lambda n: _ratio(n.tp + n.tn, n.tp + n.tn + n.fp + n.fn),
            in_short_tables=False,
        ),
        CountMetric(
            key="specificity",
            title="Spe",
            pooled=True,
            definition="TN/(TN+FP); undefined if the class fills the truth",
            unit=SHARE,
            higher_is_better=True,
            function=lambda n: _ratio(n.tn, n.tn + n.fp),
            in_short_tables=False,
        ),
        CountMetric(
            key="sensitivity",
            title="Sen",
            pooled=True,
            definition="TP/(TP+FN); undefined if the truth is empty",
            unit=SHARE,
            higher_is_better=True,
            function=lambda n: _ratio(n.tp, n.tp + n.fn),
            in_short_tables=False,
        ),
        MaskMetric(
            key="hd95",
            title="HD95",
            definition="95th percentile of the distances between the two borders, the larger of both directions; "
            "undefined if truth and prediction are empty, and also if only one is, unless that is to count as the "
            "image's diagonal",
            unit=LENGTH,
            higher_is_better=False,
            function=lambda masks, settings: hd95(masks, settings.hd95_one_empty),
            note=_note_on_hd95,
        ),
        MaskMetric(
            key="nsd",
            title="NSD",
            definition="share of both borders, by length or area, that lies within the tolerance of the other one; "
            "undefined if truth and prediction are empty, 0 if one is",
            unit=SHARE,
            higher_is_better=True,
            function=lambda masks, settings: nsd(masks, settings.tolerance),
            setting=lambda settings, unit: f"{settings.tolerance:g} {unit}",
        ),
    )
}

COUNT_METRICS = tuple(metric for metric in METRICS.values() if isinstance(metric, CountMetric))
MASK_METRICS = tuple(metric for metric in METRICS.values() if isinstance(metric, MaskMetric))
# the paper's tables begin with mIoU
POOLED_METRICS = tuple(sorted((one for one in COUNT_METRICS if one.pooled), key=lambda one: one.key != "iou"))


def per_case_metrics(settings: EvaluationSettings) -> tuple[Metric, ...]:
    """The metrics that are computed in each case."""
    return tuple(
        metric
        for metric in METRICS.values()
        if (metric.per_case if isinstance(metric, CountMetric) else settings.surface)
    )
