"""The page as one HTML file: templates, escaping, and a name that changes only when all is written."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from nnunetv2_slicemamba import __version__
from nnunetv2_slicemamba.common.console import printable
from nnunetv2_slicemamba.common.folders import InputError, is_writable
from nnunetv2_slicemamba.common.names import fold_order
from nnunetv2_slicemamba.common.outputs import require_output
from nnunetv2_slicemamba.common.whole_file import replacing
from nnunetv2_slicemamba.search.figures.style import CANDIDATE_COLOURS

from .dataset import outer_regions
from .formats import FILTERS
from .gather import Gathered, GatherProgress, ReportSettings, check, gather
from .models import Model
from .page import Page, build_page
from .paper import NAMES
from .results import Spread, mean_of, spread

FILE_NAME = "report.html"
SECTIONS = (
    ("glance", "At a glance"),
    ("progress", "Progress"),
    ("dataset", "Dataset"),
    ("plans", "Plans"),
    ("training", "Training"),
    ("search", "Search"),
    ("slicing", "Slicing"),
    ("dice", "Dice"),
    ("paper", "The paper's metrics"),
    ("cases", "Cases"),
    ("versions", "Versions"),
    ("commands", "Commands"),
)


@dataclass(frozen=True)
class Column:
    """A model's Dice of one class, or of all (their mean): a value per fold and their spread."""

    name: str
    values: tuple[float, ...]
    spread: Spread
    is_best: bool = False


@dataclass(frozen=True)
class ScoreRow:
    """A model's row in the Dice table."""

    model: Model
    columns: tuple[Column, ...]


def write_report(settings: ReportSettings, console: Console | None = None) -> Path:
    """Gathers, draws and writes the report; returns its file. An old one stays until the new one is complete.

    Raises InputError, before any work, for input that cannot be worked with or a place that cannot be written.
    """
    output = output_file(settings)
    data = gather(settings, console)
    with GatherProgress(console) as progress:
        page = build_page(data, progress.update)
    html = render(page, datetime.datetime.now().astimezone().date())
    with replacing(output) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return output


def output_file(settings: ReportSettings) -> Path:
    """The report's file: `settings.output`, else beside the results, else in the working folder.

    Raises InputError for a place that cannot be written, and for a file there that is no report.
    """
    folders, *_ = check(settings)
    output = settings.output or (folders.results or Path.cwd()) / FILE_NAME
    if output.is_dir():
        raise InputError(f"-o {output} is a folder; give a file, for example {output / FILE_NAME}")
    if settings.output is not None:
        require_output(output, "-o", ".html", b'content="nnunetv2_slicemamba ')
    parent = output.absolute().parent
    if not parent.is_dir():
        raise InputError(f"the folder of -o {output} does not exist; make it, or give another file")
    if not is_writable(parent):
        raise InputError(f"{parent} is not writable; give another file with -o")
    return output


def render(page: Page, made: datetime.date) -> str:
    """The whole HTML. The same page and date give the same text.

    Names of cases, classes and folders are text from outside: everything is escaped but the drawings, and characters
    that a terminal or an editor would act on are shown as escapes.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader(__package__, "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(FILTERS, mean=mean_of)
    style = loader.get_source(environment, "style.css")[0]
    data = page.data
    rows, folds = score_rows(data)
    found = {"nnUNet_raw": data.folders.raw, "nnUNet_preprocessed": data.folders.preprocessed}
    context: dict[str, Any] = {
        "page": page,
        "data": data,
        "classes": data.dataset.classes,
        "n_classes": len(data.dataset.classes),
        "outer": outer_regions(data.dataset.classes),
        "sections": sections_of(page),
        "style": Markup(style),
        "version": __version__,
        "made": made.isoformat(),
        "found_in": [name for name, path in {**found, "nnUNet_results": data.folders.results}.items() if path],
        "score_rows": rows,
        "score_folds": folds,
        "score_columns": rows[0].columns if rows else (),
        "paper_names": NAMES,
        "candidate_colours": CANDIDATE_COLOURS,
    }
    return printable(environment.get_template("report.html.j2").render(context))


def sections_of(page: Page) -> list[tuple[str, str]]:
    """SECTIONS, without the search's where networks were trained and nobody searched."""
    nobody_searched = not page.searches and any(model.is_final for model in page.data.models)
    return [(name, title) for name, title in SECTIONS if name != "search" or not nobody_searched]


def score_rows(data: Gathered) -> tuple[list[ScoreRow], list[str]]:
    """The Dice table's rows, and the folds that are its columns. With several classes, their mean comes first.

    The best mean of a column is marked, among models that are no supernets and were validated on the same folds.
    """
    models = [model for model in data.models if model.validated]
    folds = list(dict.fromkeys(fold.name for model in models for fold in model.validated))
    folds.sort(key=fold_order)
    rows = [ScoreRow(model, _columns(model, data, folds)) for model in models]
    compared = [row for row in rows if not row.model.is_supernet]
    fair = len({tuple(fold.name for fold in row.model.validated) for row in compared}) == 1
    if len(compared) < 2 or not fair:
        return rows, folds
    n_columns = len(rows[0].columns)
    best = [max(row.columns[i].spread.mean for row in compared) for i in range(n_columns)]
    return [
        row
        if row not in compared
        else ScoreRow(
            row.model,
            tuple(
                Column(column.name, column.values, column.spread, column.spread.mean == best[i])
                for i, column in enumerate(row.columns)
            ),
        )
        for row in rows
    ], folds


def _columns(model: Model, data: Gathered, folds: list[str]) -> tuple[Column, ...]:
    scores = [fold.validation if (fold := model.fold(name)) else None for name in folds]
    names = [name for name, _ in data.dataset.classes]
    columns = [
        Column(name, values := tuple(s.per_class[i] if s else float("nan") for s in scores), spread(values))
        for i, name in enumerate(names)
    ]
    if len(columns) > 1:
        values = tuple(s.foreground if s else float("nan") for s in scores)
        columns.insert(0, Column("mean of the classes", values, spread(values)))
    return tuple(columns)
