"""How does an evaluation look in a paper? Tables for LaTeX's booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from nnunetv2_slicemamba.evaluation.export import PROTOCOLS
from nnunetv2_slicemamba.evaluation.metrics import PAPER_METRICS
from nnunetv2_slicemamba.evaluation.results import Evaluation, Summary
from nnunetv2_slicemamba.evaluation.rows import head, paper_rows, per_case_rows, shown

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
PER_CASE_METRICS = ("dice", "iou", "hd95", "nsd")


def latex_tables(evaluation: Evaluation, protocols: Sequence[str] = tuple(PROTOCOLS)) -> str:
    """One table per protocol; needs the packages booktabs and, for accents in names, a UTF-8 engine or inputenc."""
    tables = ["% needs \\usepackage{booktabs}"]
    if "paper" in protocols:
        tables.append(_paper(evaluation))
    if "per-case" in protocols:
        tables.append(_per_case(evaluation))
    return "\n\n".join(tables) + "\n"


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is, on one line."""
    return "".join(_SPECIAL.get(character, character) for character in " ".join(text.split()))


def _paper(evaluation: Evaluation) -> str:
    rows = {
        name: [shown(scores[metric], metric) for metric in PAPER_METRICS]
        for name, scores in paper_rows(evaluation).items()
    }
    caption = f"All {evaluation.pixels} of {len(evaluation.cases)} cases pooled, in \\%."
    return _table(caption, "pooled", [escape_latex(title) for title in PAPER_METRICS.values()], rows)


def _per_case(evaluation: Evaluation) -> str:
    metrics = [metric for metric in PER_CASE_METRICS if metric in evaluation.metrics]
    rows = {
        name: [_cell(summaries[metric], metric) for metric in metrics]
        for name, summaries in per_case_rows(evaluation).items()
    }
    level = f"{100 * evaluation.settings.confidence:g}\\%"
    caption = (
        f"Mean over {len(evaluation.cases)} cases with the {level} bootstrap confidence interval (BCa); "
        "fractions in \\%." + _left_out(evaluation, metrics)
    )
    return _table(caption, "per-case", [escape_latex(head(metric, evaluation)) for metric in metrics], rows)


def _cell(summary: Summary, metric: str) -> str:
    low, high = shown(summary.low, metric), shown(summary.high, metric)
    bounds = f" [{low}, {high}]" if summary.low == summary.low else ""
    return f"{shown(summary.mean, metric)}{bounds}"


def _left_out(evaluation: Evaluation, metrics: Sequence[str]) -> str:
    undefined = [
        f"{escape_latex(head(metric, evaluation))} of {escape_latex(name)} in {summaries[metric].undefined}"
        for name, summaries in evaluation.per_case.summaries.items()
        for metric in metrics
        if summaries[metric].undefined
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
