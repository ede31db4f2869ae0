"""Tables of an evaluation for a paper, with LaTeX's booktabs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nnunetv2_slicemamba.common.console import printable
from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.evaluation.metrics import METRICS, POOLED_METRICS, Metric
from nnunetv2_slicemamba.evaluation.results import PROTOCOLS, Evaluation, Summary

FIRST_LINE = "% needs \\usepackage{booktabs}"
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def latex_tables(evaluation: Evaluation, protocols: Sequence[str] = tuple(PROTOCOLS)) -> str:
    """One table per protocol; needs the packages booktabs and, for accents in names, a UTF-8 engine or inputenc."""
    tables = [FIRST_LINE]
    if "paper" in protocols:
        tables.append(_paper(evaluation))
    if "per-case" in protocols:
        tables.append(_per_case(evaluation))
    return "\n\n".join(tables) + "\n"


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is, on one line, also as the first cell of a row."""
    line = " ".join(printable(text).split())
    # the end of the row before would take these for its arguments: \\[length], \\*
    begin = "{}" if line.startswith(("[", "*")) else ""
    return begin + "".join(_SPECIAL.get(character, character) for character in line)


def _paper(evaluation: Evaluation) -> str:
    rows = {
        name: [metric.shown(scores[metric.key]) for metric in POOLED_METRICS]
        for name, scores in evaluation.paper.rows.items()
    }
    caption = f"All {evaluation.pixels} of {count(len(evaluation.cases), 'case')} pooled, in \\%."
    return _table(caption, "pooled", [escape_latex(metric.pooled_head) for metric in POOLED_METRICS], rows)


def _per_case(evaluation: Evaluation) -> str:
    metrics = [METRICS[key] for key in evaluation.metrics if METRICS[key].in_short_tables]
    heads = {metric.key: escape_latex(metric.head(evaluation.settings, evaluation.unit)) for metric in metrics}
    rows = {
        name: [_cell(summaries[metric.key], metric) for metric in metrics]
        for name, summaries in evaluation.per_case.rows.items()
    }
    level = f"{100 * evaluation.settings.confidence:g}\\%"
    caption = (
        f"Mean over {count(len(evaluation.cases), 'case')} with the {level} bootstrap confidence interval (BCa); "
        "fractions in \\%." + _left_out(evaluation, heads)
    )
    return _table(caption, "per-case", list(heads.values()), rows)


def _cell(summary: Summary, metric: Metric) -> str:
    bounds = "" if math.isnan(summary.low) else f" [{metric.shown(summary.low)}, {metric.shown(summary.high)}]"
    return f"{metric.shown(summary.mean)}{bounds}"


def _left_out(evaluation: Evaluation, heads: Mapping[str, str]) -> str:
    undefined = [
        f"{head} of {escape_latex(name)} in {summaries[key].undefined}"
        for name, summaries in evaluation.per_case.summaries.items()
        for key, head in heads.items()
        if summaries[key].undefined
    ]
    return f" Cases left out as undefined: {', '.join(undefined)}." if undefined else ""


def _table(caption: str, label: str, columns: Sequence[str], rows: dict[str, list[str]]) -> str:
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{caption}}}",
        rf"  \label{{tab:slicemamba-{label}}}",
        rf"  \begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"    \toprule",
        rf"    Class & {' & '.join(columns)} \\",
        r"    \midrule",
        *(rf"    {escape_latex(name)} & {' & '.join(cells)} \\" for name, cells in rows.items()),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)
