"""The figures of a search as PNG files and on one page that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_slicemamba.common.console import printable
from nnunetv2_slicemamba.common.whole_file import replacing
from nnunetv2_slicemamba.search.figures.agreement import (
    chosen_slicings,
    describe_agreement,
    draw_agreement,
    thickness_agreement,
)
from nnunetv2_slicemamba.search.figures.candidates import candidate_shares, describe_candidates, draw_candidates
from nnunetv2_slicemamba.search.figures.data import N_BEST, FigureData
from nnunetv2_slicemamba.search.figures.generations import describe_generations, draw_generations
from nnunetv2_slicemamba.search.figures.importance import (
    Importance,
    describe_importance,
    draw_importance,
    importance_of,
)
from nnunetv2_slicemamba.search.figures.network import describe_network, draw_network
from nnunetv2_slicemamba.search.figures.pareto import describe_pareto, draw_pareto
from nnunetv2_slicemamba.search.figures.style import DPI, STYLE, breakable, origin_style, shown
from nnunetv2_slicemamba.search.noise import noise_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_FOLDER = "figures"
PAGE_FILE = "search.html"


@dataclass(frozen=True)
class Picture:
    """A figure on the page. uri: its PNG as a data URI, empty where `caption` says why there is none. alt: in words;
    width, height: in pixels."""

    name: str
    title: str
    caption: str
    alt: str = ""
    uri: str = ""
    width: int = 0
    height: int = 0


# {n} and {n_best} stand for the numbers of architectures, of all and of the best
CAPTIONS = {
    "fitness": (
        "Fitness over the generations",
        "Grey: every evaluation. Dashed: mean of the generation, the band one standard deviation to each side. Black: "
        "best so far. Markers: the best of each generation; shape and colour say how it was proposed.",
    ),
    "pareto": (
        "Fitness against cost",
        "Every architecture by its measured cost and its fitness. For those on the front, no other is both cheaper and "
        "at least as good. Thicknesses hardly differ in cost, and a latency is a measurement: small "
        "differences are noise.",
    ),
    "slicing": (
        "The chosen slicing",
        "Every block as a patch of 8 by 8 tokens, ruled into the cells that its thicknesses (height by width, in 3D "
        "depth by height by width) make; in 3D the tab at its left is the depth. Encoder on the left, decoder on the "
        "right; dashed: the skip of the stage's input. Below: the number of blocks of each thickness.",
    ),
    "candidates": (
        "Candidates among the best",
        "How often each thickness appears at each block among the best {n_best} of {n} architectures, in percent. The "
        "search breeds from its best, so these resemble each other: a block that hardly matters can look decided.",
    ),
    "importance": (
        "Importance of every block's choice",
        "Share of the fitness's variance that a block's choice explains by itself, by Optuna's functional ANOVA over "
        "all evaluations. The dashed line is the largest share that shuffled choices reached: what does not exceed it "
        "cannot be told from chance.",
    ),
    "agreement": (
        "Agreement between the folds",
        "The chosen thickness of every block in every searched fold, and the share of pairs of folds that chose the "
        "same. Folds that agree on the fitness of the same architectures support each other even where "
        "their choices differ.",
    ),
}


def write_figures(data: FigureData, folder: Path) -> Path:
    """Draws all figures into folder/figures and the page folder/search.html; returns the page.

    Every file is replaced as a whole, and the page last. A figure that cannot be drawn (too few evaluations, one fold
    only) is missing, and the page says why.
    """
    importance = importance_of(data.records, len(data.candidates))
    draw: dict[str, tuple[Callable[[Figure], None], Callable[[], str]]] = {
        "fitness": (lambda figure: draw_generations(figure, data), lambda: describe_generations(data)),
        "slicing": (lambda figure: draw_network(figure, data), lambda: describe_network(data)),
    }
    missing: dict[str, str] = {}
    if data.n_best:
        draw["candidates"] = (lambda figure: draw_candidates(figure, data), lambda: describe_candidates(data))
    else:
        missing["candidates"] = (
            f"Not drawn: {len(data.records)} architectures were evaluated, and the best of fewer than {N_BEST} say "
            "nothing about single blocks."
        )
    cost = data.cost
    if cost is not None:
        draw["pareto"] = (lambda figure: draw_pareto(figure, data, cost), lambda: describe_pareto(data, cost))
    if isinstance(importance, Importance):
        draw["importance"] = (
            lambda figure: draw_importance(figure, data, importance),
            lambda: describe_importance(data, importance),
        )
    else:
        missing["importance"] = f"Not drawn: {importance}."
    if len(chosen_slicings(data)) > 1:
        draw["agreement"] = (lambda figure: draw_agreement(figure, data), lambda: describe_agreement(data))
    else:
        missing["agreement"] = (
            f"Not drawn: fold {data.fold} is the only one that is searched. Search another fold; "
            "'slicemamba search --figures-only' then draws this page anew."
        )
    pictures = []
    for name, (title, caption) in CAPTIONS.items():
        file = folder / FIGURE_FOLDER / f"{name}.png"
        if name not in draw:
            file.unlink(missing_ok=True)  # of an earlier drawing, it would be out of date
        if name in missing:
            pictures.append(Picture(name, title, missing[name]))
        elif name in draw:
            drawn, described = draw[name]
            width, height = write_png(drawn, file)
            uri = f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
            told = caption.format(n=len(data.records), n_best=data.n_best)
            pictures.append(Picture(name, title, told, described(), uri, width, height))
    page = folder / PAGE_FILE
    with replacing(page) as temporary:
        temporary.write_text(render(data, pictures, importance), encoding="utf-8")
    return page


def write_png(draw: Callable[[Figure], None], file: Path) -> tuple[int, int]:
    """Draws a figure and writes it at 200 dots per inch; returns its size in pixels."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(layout="constrained")
        draw(figure)
        with replacing(file) as temporary:
            figure.savefig(temporary, dpi=DPI, format="png")
        width, height = figure.get_size_inches() * DPI
    return int(width), int(height)


def render(data: FigureData, pictures: list[Picture], importance: Importance | str) -> str:
    """The whole HTML; every text is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from nnunetv2_slicemamba import __version__

    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = breakable
    columns, rows = block_table(data, importance)
    context: dict[str, Any] = {
        "data": data,
        "version": __version__,
        "noise": noise_of(data.records),
        "pictures": pictures,
        "tiles": tiles(data),
        "columns": columns,
        "rows": rows,
    }
    return printable(environment.get_template("figures.html.j2").render(context))


def tiles(data: FigureData) -> list[tuple[str, str]]:
    """The search in a few numbers."""
    best = data.best
    cost = [] if data.cost is None or best.cost is None else [(f"Its {data.cost.title}", data.cost.shown(best.cost))]
    return [
        (f"Best fitness ({data.fitness_title})", f"{best.fitness:.4f}"),
        *cost,
        ("Found in generation", f"{best.generation} ({origin_style(best.origin)[0]})"),
        ("Evaluations", f"{len(data.records):,}"),
        ("Blocks", str(data.n_blocks)),
    ]


def block_table(data: FigureData, importance: Importance | str) -> tuple[list[str], list[list[str]]]:
    """Headings and a row per block: what the figures show, as numbers."""
    columns = ["block", "thickness"]
    share = None
    if data.n_best:
        share, n = candidate_shares(data.eligible, len(data.candidates), data.n_best)
        columns.append(f"its share among the best {n}")
    slicings = list(chosen_slicings(data).values())
    agreement = thickness_agreement(slicings) if len(slicings) > 1 else None
    if isinstance(importance, Importance):
        columns.append("importance")
    if agreement is not None:
        columns.append("agreeing pairs of folds")
    rows = []
    for i, name in enumerate(data.block_names):
        row = [name, shown(data.slicing[i])]
        if share is not None:
            row.append(f"{100 * share[data.best.architecture[i], i]:.0f} %")
        if isinstance(importance, Importance):
            row.append(f"{100 * importance.share[i]:.1f} %")
        if agreement is not None:
            row.append(f"{100 * agreement[i]:.0f} %")
        rows.append(row)
    return columns, rows
