"""The results of `accuracy.py` as a table on the terminal and as the generated part of accuracy.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_runs import DATASETS
from numpy.typing import NDArray
from rich.table import Table

from nnunetv2_slicemamba.comparison.statistics import paired_difference, spread

PAGE = Path(__file__).parent / "accuracy.md"
BEGIN, END = "<!-- table: written by accuracy.py table -->", "<!-- end of table -->"
REFERENCE = "stock"
HEADINGS = ("run", "Dice", "to nnU-Net", "per class", "s / epoch", "GiB", "M params", "batch x patch", "on", "note")
LEFT = ("run", "per class", "batch x patch", "on", "note", "candidate", "prediction", "folds", "fold by fold")
OVER_FOLDS = ("candidate", "folds", "trainings", "Dice", "to nnU-Net", "95 % by cases", "fold by fold")
OVER_TRAININGS = ("candidate", "trainings", "Dice", "to nnU-Net", "95 % by cases", "prediction")


@dataclass(frozen=True)
class Row:
    """One run as text, in the order of HEADINGS."""

    cells: tuple[str, ...]
    finished: bool


def folds_of(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, int]]:
    """The datasets, in their order, and folds that there are runs of."""
    found = {(r["dataset"], r["fold"]) for r in results.values() if not r.get("trial")}
    return sorted(found, key=lambda part: (list(DATASETS).index(part[0]), part[1]))


def _runs_of(results: Mapping[str, Mapping[str, Any]], dataset: str, fold: int) -> list[Mapping[str, Any]]:
    return [r for r in results.values() if (r["dataset"], r["fold"]) == (dataset, fold) and not r.get("trial")]


def _trainings_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The finished ones that were made here, by candidate."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for result in runs:
        if result["state"] == "finished" and not result.get("by_hand"):
            found.setdefault(result["candidate"], []).append(result)
    return found


def _mean_dice(runs: Sequence[Mapping[str, Any]]) -> float:
    return sum(r["dice"]["mean"] for r in runs) / len(runs)


def rows_of(results: Mapping[str, Mapping[str, Any]], dataset: str, fold: int = 0) -> list[Row]:
    """The runs of a fold: finished ones by falling Dice, then the others by name. Trials are left out."""
    chosen = _runs_of(results, dataset, fold)
    reference = reference_dice(chosen)
    finished = sorted((r for r in chosen if r["state"] == "finished"), key=lambda r: -r["dice"]["mean"])
    others = sorted((r for r in chosen if r["state"] != "finished"), key=lambda r: r["name"])
    return [_row(result, reference) for result in (*finished, *others)]


def reference_dice(results: Sequence[Mapping[str, Any]]) -> float | None:
    """Mean Dice of nnU-Net's own network: of the runs made here (the mean if repeated), else of one by hand."""
    stock = [r for r in results if r["candidate"] == REFERENCE and r["state"] == "finished"]
    made = [r for r in stock if not r.get("by_hand")] or stock
    return _mean_dice(made) if made else None


def candidates_of(results: Mapping[str, Mapping[str, Any]], dataset: str, fold: int = 0) -> list[tuple[str, ...]]:
    """The candidates of a fold as text, in the order of OVER_TRAININGS, by falling mean Dice of their trainings,
    then those that none has finished.

    Only of runs made here. The interval is a paired bootstrap over the cases, of the trainings that tell them.
    """
    chosen = _runs_of(results, dataset, fold)
    runs = _trainings_of(chosen)
    reference = reference_dice(chosen)
    shown = []
    for name, trainings in sorted(runs.items(), key=lambda item: -_mean_dice(item[1])):
        mean, sd = _mean_dice(trainings), spread([r["dice"]["mean"] for r in trainings])
        shown.append(
            (
                name,
                str(len(trainings)),
                f"{mean:.4f}" + ("" if math.isnan(sd) else f" ± {sd:.4f}"),
                "-" if reference is None else f"{mean - reference:+.4f}",
                "-" if name == REFERENCE else _interval(trainings, runs.get(REFERENCE, [])),
                trainings[0]["prediction"],
            )
        )
    others = [r for r in chosen if r["candidate"] not in runs and not r.get("by_hand")]
    without = {r["candidate"]: (r["state"], r["prediction"]) for r in others}
    return shown + [(name, "0", state, "-", "-", said) for name, (state, said) in sorted(without.items())]


def over_folds(results: Mapping[str, Mapping[str, Any]], dataset: str) -> list[tuple[str, ...]]:
    """The candidates that were trained on several folds that nnU-Net's own network was trained on too, as text, in the
    order of OVER_FOLDS, by falling mean difference.

    Of a fold the mean of its trainings counts, of the folds their mean. The interval is a paired bootstrap over the
    cases of all folds, of a case's mean over the trainings that tell it.
    """
    by_fold = {fold: _trainings_of(_runs_of(results, dataset, fold)) for of, fold in folds_of(results) if of == dataset}
    compared = {fold: runs for fold, runs in by_fold.items() if REFERENCE in runs}
    shown = []
    for name in sorted({name for runs in compared.values() for name in runs} - {REFERENCE}):
        pairs = {fold: (runs[name], runs[REFERENCE]) for fold, runs in compared.items() if name in runs}
        if len(pairs) < 2:
            continue
        own = [_mean_dice(one) for one, _ in pairs.values()]
        apart = [_mean_dice(one) - _mean_dice(other) for one, other in pairs.values()]
        mean = sum(apart) / len(apart)
        row = (
            *(name, ", ".join(map(str, pairs)), str(sum(len(one) for one, _ in pairs.values()))),
            *(f"{sum(own) / len(own):.4f}", f"{mean:+.4f}", _interval_over_folds(list(pairs.values()))),
            ", ".join(f"{value:+.4f}" for value in apart),
        )
        shown.append((mean, row))
    return [row for _, row in sorted(shown, key=lambda item: -item[0])]


def _interval_over_folds(pairs: Sequence[tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]]) -> str:
    tables = [_by_case(one, other) for one, other in pairs]
    told = [table for table in tables if table is not None]
    if len(told) < len(pairs):
        return "-"
    # folds have different numbers of trainings, so their mean stands for them
    one, other = (np.concatenate([table[i].mean(axis=0) for table in told], axis=-1)[None] for i in (0, 1))
    return _bounds(one, other)


def _interval(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> str:
    """With those trainings of both that tell the Dice of every case; how many of the candidate's, if not all."""
    tables = _by_case(one, other)
    if tables is None:
        return "-"
    bounds, told = _bounds(*tables), len(tables[0])
    return f"{bounds} ({told} of {len(one)})" if bounds != "-" and told < len(one) else bounds


Tables = tuple[NDArray[np.float64], NDArray[np.float64]]


def _by_case(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> Tables | None:
    """(trainings, classes, cases) of those trainings of both that tell every case; None without any."""
    told, against = ([r for r in runs if r["dice"].get("by_case")] for runs in (one, other))
    if not told or not against:
        return None
    first = told[0]["dice"]["by_case"]
    cases, classes = sorted(first), sorted(next(iter(first.values())))

    def table(runs: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        values = [[[r["dice"]["by_case"][case][k] for case in cases] for k in classes] for r in runs]
        return np.array(values, dtype=np.float64)

    return table(told), table(against)


def _bounds(one: NDArray[np.float64], other: NDArray[np.float64]) -> str:
    found = paired_difference(one, other)
    return "-" if math.isnan(found.low) else f"{found.low:+.4f} to {found.high:+.4f}"


def _number(value: float | None, digits: int, scale: float = 1.0) -> str:
    return "-" if value is None else f"{value / scale:.{digits}f}"


def _row(result: Mapping[str, Any], reference: float | None) -> Row:
    dice = result["dice"] or {}
    spread = dice.get("sd")
    mean = "-" if not dice else f"{dice['mean']:.4f}" + (f" ± {spread:.3f}" if spread is not None else "")
    apart = "-" if not dice or reference is None else f"{dice['mean'] - reference:+.4f}"
    classes = ", ".join(f"{name} {_number(c['mean'], 4)}" for name, c in (dice.get("per_class") or {}).items())
    memory = (result.get("peak_memory_mib") or {}).get("reserved")
    patch = "x".join(map(str, result.get("patch_size") or []))
    cells = (
        result["name"],
        mean,
        apart,
        classes or "-",
        _number(result.get("epoch_seconds"), 1),
        _number(memory, 1, 2**10),
        _number(result.get("parameters"), 1, 1e6),
        f"{result['batch_size']} x {patch}" if patch and result.get("batch_size") else "-",
        _device(result),
        _note(result),
    )
    return Row(cells, result["state"] == "finished")


def _device(result: Mapping[str, Any]) -> str:
    return (result.get("gpu") or "-").removeprefix("NVIDIA ").removesuffix(" 80GB HBM3")


def _note(result: Mapping[str, Any]) -> str:
    said = []
    if result["state"] == "unfinished":
        said.append(f"unfinished: {result['epochs_done']} of {result.get('epochs') or '?'} epochs")
    if result["state"] == "failed":
        last = (result.get("failure") or ["no message"])[-1]
        said.append(f"failed: {last[:100]}")
    if result.get("by_hand"):
        said.append(str(result["by_hand"]))
    if result.get("search"):
        said.append(f"its search chose {result['search']['fitness']:.4f}")
    if result.get("beside"):
        gpus = result.get("gpus", 1)
        on = f" on {gpus} GPUs" if gpus > 1 else ""
        said.append(f"beside {len(result['beside'])} other{'s' * (len(result['beside']) > 1)}{on}")
    failed = sum(attempt["state"] == "failed" for attempt in result.get("earlier", []))
    if failed:
        said.append(f"{failed} failed attempt{'s' * (failed > 1)} before")
    return "; ".join(said)


def rich_table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title="Mean validation Dice at equal budget", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in LEFT else "right", overflow="fold")
    for dataset, fold in folds_of(results):
        for row in rows_of(results, dataset, fold):
            table.add_row(*row.cells, style=None if row.finished else "dim")
        table.add_section()
    return table


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Per dataset and fold a table of candidates, with what was expected of each, and one of all runs; before them one
    over the folds of each dataset that has several."""
    lines: list[str] = []
    for dataset in DATASETS:
        rows = over_folds(results, dataset)
        if rows:
            lines += [f"### {dataset}, over folds", "", *_table(OVER_FOLDS, rows)]
    for dataset, fold in folds_of(results):
        lines += [f"### {dataset}, fold {fold}", ""]
        candidates = candidates_of(results, dataset, fold)
        if candidates:
            lines += _table(OVER_TRAININGS, candidates)
        lines += _table(HEADINGS, [row.cells for row in rows_of(results, dataset, fold)])
    return "\n".join(lines)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rules = ["---" if heading in LEFT else "---:" for heading in headings]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [*(f"| {' | '.join(line)} |" for line in (headings, rules, *cells)), ""]


def write_page(results: Mapping[str, Mapping[str, Any]], page: Path = PAGE) -> None:
    """Replaces what is between the markers; ValueError if they are not there."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks the lines '{BEGIN}' and '{END}', between which the table is written")
    page.write_text(f"{before}{BEGIN}\n\n{markdown(results)}\n{END}{after}", encoding="utf-8")
