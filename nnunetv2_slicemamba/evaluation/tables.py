"""Tables of an evaluation on a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from nnunetv2_slicemamba.common.console import styled
from nnunetv2_slicemamba.common.counts import all_of, count
from nnunetv2_slicemamba.evaluation.metrics import METRICS, MISSING, POOLED_METRICS, Metric
from nnunetv2_slicemamba.evaluation.results import PROTOCOLS, Evaluation, Summary

MANY_CLASSES = 3  # with more, metrics that are not for short tables stay in the JSON file


def print_evaluation(evaluation: Evaluation, console: Console, protocols: Sequence[str] = tuple(PROTOCOLS)) -> None:
    """One table per protocol, fractions in percent, then the notes."""
    cases = len(evaluation.cases)
    if "paper" in protocols:
        console.print(
            f"As in the paper: the {evaluation.pixels} of {all_of(cases, 'case')} pooled, in %", highlight=False
        )
        console.print(_paper(evaluation))
    if "per-case" in protocols:
        console.print(f"Per case, over {count(cases, 'case')}, fractions in %", highlight=False)
        console.print(_per_case(evaluation))
    for note in evaluation.notes_for(protocols):
        console.print(styled("note:", "yellow").append_text(styled(f" {note}")), soft_wrap=True)


def _paper(evaluation: Evaluation) -> Table:
    table = Table()
    table.add_column("class")
    for metric in POOLED_METRICS:
        table.add_column(metric.pooled_head, justify="right")
    for name, scores in evaluation.paper.rows.items():
        table.add_row(styled(name), *(metric.shown(scores[metric.key]) for metric in POOLED_METRICS))
    return table


def _per_case(evaluation: Evaluation) -> Table:
    level = f"{100 * evaluation.settings.confidence:g}% CI"
    table = Table()
    table.add_column("class", overflow="fold")
    table.add_column("metric", no_wrap=True)
    for title in ("mean", level, "median", "SD", "left out"):
        table.add_column(title, justify="right", no_wrap=True)
    metrics = [METRICS[key] for key in evaluation.metrics]
    if len(evaluation.classes) > MANY_CLASSES:
        metrics = [metric for metric in metrics if metric.in_short_tables]
    for name, summaries in evaluation.per_case.rows.items():
        table.add_section()
        for position, metric in enumerate(metrics):
            one = summaries[metric.key]
            table.add_row(
                styled(name if position == 0 else ""),
                styled(metric.head(evaluation.settings, evaluation.unit)),
                metric.shown(one.mean),
                _interval(one, metric),
                metric.shown(one.median),
                metric.shown(one.sd),
                f"{one.undefined} of {one.cases}" if one.undefined else "-",
            )
    return table


def _interval(summary: Summary, metric: Metric) -> str:
    return MISSING if math.isnan(summary.low) else f"{metric.shown(summary.low)} to {metric.shown(summary.high)}"
