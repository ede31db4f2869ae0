"""How does an evaluation look on a terminal?"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nnunetv2_slicemamba.evaluation.export import PROTOCOLS
from nnunetv2_slicemamba.evaluation.metrics import PAPER_METRICS
from nnunetv2_slicemamba.evaluation.results import Evaluation
from nnunetv2_slicemamba.evaluation.rows import head, interval, paper_rows, per_case_rows, shown

# with many classes only what is usual for organs; the others stay in the JSON file
SHOWN_FOR_MANY = ("dice", "iou", "hd95", "nsd")
MANY_CLASSES = 3


def print_evaluation(evaluation: Evaluation, console: Console, protocols: Sequence[str] = tuple(PROTOCOLS)) -> None:
    """One table per protocol, fractions in percent, then the notes."""
    cases = len(evaluation.cases)
    if "paper" in protocols:
        console.print(f"As in the paper: the {evaluation.pixels} of all {cases} cases pooled, in %", highlight=False)
        console.print(_paper(evaluation))
    if "per-case" in protocols:
        console.print(f"Per case, over {cases} cases, fractions in %", highlight=False)
        console.print(_per_case(evaluation))
    for note in evaluation.notes_for(protocols):
        console.print(f"[yellow]note:[/] {escape(note)}", highlight=False, soft_wrap=True)


def _paper(evaluation: Evaluation) -> Table:
    table = Table()
    table.add_column("class")
    for title in PAPER_METRICS.values():
        table.add_column(title, justify="right")
    for name, scores in paper_rows(evaluation).items():
        table.add_row(escape(name), *(shown(scores[metric], metric) for metric in PAPER_METRICS))
    return table


def _per_case(evaluation: Evaluation) -> Table:
    level = f"{100 * evaluation.settings.confidence:g}% CI"
    table = Table()
    table.add_column("class", overflow="fold")
    table.add_column("metric", no_wrap=True)
    for title in ("mean", level, "median", "SD", "left out"):
        table.add_column(title, justify="right", no_wrap=True)
    metrics = evaluation.metrics
    if len(evaluation.classes) > MANY_CLASSES:
        metrics = tuple(metric for metric in metrics if metric in SHOWN_FOR_MANY)
    for name, summaries in per_case_rows(evaluation).items():
        table.add_section()
        for position, metric in enumerate(metrics):
            one = summaries[metric]
            table.add_row(
                escape(name) if position == 0 else "",
                head(metric, evaluation),
                shown(one.mean, metric),
                interval(one, metric),
                shown(one.median, metric),
                shown(one.sd, metric),
                f"{one.undefined} of {one.cases}" if one.undefined else "-",
            )
    return table
