"""What stands in the cells of a table? The same text for terminal and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nnunetv2_slicemamba.evaluation.metrics import METRICS
from nnunetv2_slicemamba.evaluation.results import Evaluation, Summary

MEAN_ROW = "mean"
MISSING = "-"


def shown(value: float, metric: str) -> str:
    """A fraction in percent, a length as it is; two digits."""
    if math.isnan(value):
        return MISSING
    return f"{100 * value if METRICS[metric].is_fraction else value:.2f}"


def interval(summary: Summary, metric: str) -> str:
    return MISSING if math.isnan(summary.low) else f"{shown(summary.low, metric)} to {shown(summary.high, metric)}"


def head(metric: str, evaluation: Evaluation) -> str:
    """A metric's name with what belongs to it: the tolerance, the unit."""
    title = METRICS[metric].title
    if metric == "hd95":
        return f"{title} ({evaluation.unit})"
    if metric == "nsd":
        return f"{title} ({evaluation.settings.tolerance:g} {evaluation.unit})"
    return title


def paper_rows(evaluation: Evaluation) -> dict[str, Mapping[str, float]]:
    """Scores per row; the mean is a row where there are several classes."""
    rows = dict(evaluation.paper.scores)
    return {**rows, MEAN_ROW: evaluation.paper.mean} if len(rows) > 1 else rows


def per_case_rows(evaluation: Evaluation) -> dict[str, Mapping[str, Summary]]:
    """Summaries per row; the mean is a row where there are several classes."""
    rows = dict(evaluation.per_case.summaries)
    return {**rows, MEAN_ROW: evaluation.per_case.mean} if len(rows) > 1 else rows
