"""Results from the cases' scores: pooled as the paper does it, and summarised over cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nnunetv2_slicemamba.evaluation.confusion import Counts
from nnunetv2_slicemamba.evaluation.metrics import POOLED_METRICS
from nnunetv2_slicemamba.evaluation.results import (
    CaseResult,
    ClassLabel,
    EvaluationSettings,
    PaperResult,
    PerCaseResult,
    Summary,
)
from nnunetv2_slicemamba.evaluation.statistics import summarise


def paper_result(cases: Sequence[CaseResult], classes: Sequence[ClassLabel]) -> PaperResult:
    """The pixels of all cases in one confusion matrix per class, and the mean of the classes' scores."""
    counts = {one.name: sum((case.scores[one.name].counts for case in cases), Counts(0, 0, 0, 0)) for one in classes}
    scores = {
        name: {metric.key: float(metric.function(pooled)) for metric in POOLED_METRICS}
        for name, pooled in counts.items()
    }
    mean = {metric.key: _mean([one[metric.key] for one in scores.values()]) for metric in POOLED_METRICS}
    return PaperResult(counts, scores, mean)


def per_case_result(
    cases: Sequence[CaseResult], classes: Sequence[ClassLabel], metrics: Sequence[str], settings: EvaluationSettings
) -> PerCaseResult:
    """Every metric summarised over the cases, per class and over the classes."""
    summaries: dict[str, Mapping[str, Summary]] = {}
    for one in classes:
        half_empty = sum(case.scores[one.name].one_empty for case in cases)
        summaries[one.name] = {
            metric: summarise([[case.scores[one.name].value(metric) for case in cases]], half_empty, settings)
            for metric in metrics
        }
    if len(classes) == 1:
        return PerCaseResult(summaries, next(iter(summaries.values())))
    half_empty = sum(any(case.scores[one.name].one_empty for one in classes) for case in cases)
    mean = {
        metric: summarise(
            [[case.scores[one.name].value(metric) for case in cases] for one in classes], half_empty, settings
        )
        for metric in metrics
    }
    return PerCaseResult(summaries, mean)


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
