"""Type, colours that everybody can tell apart, and the token patch: what the figures of a search have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from markupsafe import Markup

from nnunetv2_slicemamba.slicing.candidates import (
    NAMED,
    NO_BLOCK,
    NO_SCAN,
    Candidate,
    Slicing,
    candidate_from_json,
    in_order,
    reading_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Colours: TypeAlias = dict[Candidate, str]

TIMES = "\N{MULTIPLICATION SIGN}"
WIDTH = 7.2  # inches: two columns of a journal's page
DPI = 200
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7,
}
# text and lines, from the strongest to the faintest
INK, MUTED, BAR, FAINT, RULE, GRID = "#15202B", "#4B5A68", "#8FA3B5", "#B8C2CC", "#D5DCE3", "#E6EAEE"
PAPER = "#FFFFFF"
MAIN, BEST, GOOD = "#0072B2", "#D55E00", "#0B6B4A"
# Okabe and Ito's colours; the patches' rulings tell candidates apart without any colour.
CANDIDATE_COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#D9C400", "#0072B2", "#D55E00", "#8C8C8C")
# origin of an architecture: what to call it, colour, marker
ORIGIN_STYLES = {
    "random": ("random", "#7F7F7F", "o"),
    "mutant": ("mutant", "#0072B2", "^"),
    "crossover": ("crossover", "#E69F00", "s"),
    "tpe": ("TPE", "#009E73", "D"),
    "nsga2": ("NSGA-II", "#CC79A7", "v"),
}
PATCH = 8  # tokens along each side of a token patch
CUT = 0.05  # width of the cuts between a patch's cells, as a share of its side
TAB, TAB_GAP = 0.1, 0.06  # width of the tab for the depth and its distance from the patch, as shares of the side


def origin_style(origin: str) -> tuple[str, str, str]:
    """Name, colour and marker of an origin; all unknown ones share a colour and a marker."""
    return ORIGIN_STYLES.get(origin, (origin, "#000000", "X"))


def shown(candidate: Candidate) -> str:
    """A candidate as people print it: 2×4, no scan."""
    return candidate.replace("-", " ") if isinstance(candidate, str) else TIMES.join(map(str, candidate))


def breakable(text: str) -> Markup:
    """A name with places where a narrow page may break it: between words in camel case and after underscores."""
    parts = re.split(r"(?<=[a-z0-9]{3})(?=[A-Z])|(?<=_)(?=[^_])", text)
    return Markup("<wbr>").join(parts)


def token_patch(
    axes: Axes, x: float, y: float, size: float, candidate: Candidate, colour: str, height: float | None = None
) -> None:
    """Draws a block as a patch of 8 by 8 tokens, cut into the cells that its thicknesses make.

    Without a scan the patch is a frame with a dot, without a block an empty frame.

    x, y, size, height: left edge, upper edge and sides in data units, y downwards; height None stands for size. The
    patch may stand beside the axes. The last two axes are height and width; in 3D a tab at the left is cut by the
    depth's thickness in the same scale.
    """
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    tall = size if height is None else height
    if candidate in NAMED:
        _frame(axes, x, y, size, tall, colour, str(candidate))
        return
    # nothing is cut across the axis along which alone bands are read
    candidate = tuple(part or PATCH for part in reading_of(candidate))
    rows, columns = (_cells(part) for part in candidate[-2:])
    boxes = [(x + size * left, y + tall * top, size * width, tall * depth)
             for top, depth in rows for left, width in columns]  # fmt: skip
    if len(candidate) == 3:
        tab = x - size * (TAB + TAB_GAP)
        boxes += [(tab, y + tall * top, size * TAB, tall * depth) for top, depth in _cells(candidate[0])]
    corners = [[(l, t), (l + w, t), (l + w, t + h), (l, t + h), (l, t)] for l, t, w, h in boxes]
    path = Path.make_compound_path(*(Path(points, closed=True) for points in corners))
    axes.add_patch(PathPatch(path, facecolor=colour, edgecolor="none", clip_on=False))


def _frame(axes: Axes, x: float, y: float, width: float, height: float, colour: str, candidate: str) -> None:
    from matplotlib.patches import Ellipse, Rectangle

    style: Any = {"fill": False, "ec": colour, "lw": 1.0, "clip_on": False}
    inset = 0.06
    corner, size = (x + inset * width, y + inset * height), ((1 - 2 * inset) * width, (1 - 2 * inset) * height)
    axes.add_patch(Rectangle(corner, *size, ls=(0, (2, 1.5)) if candidate == NO_BLOCK else "-", **style))
    if candidate == NO_SCAN:
        centre = (x + width / 2, y + height / 2)
        axes.add_patch(Ellipse(centre, width / 2.5, height / 2.5, fc=colour, ec="none", clip_on=False))


def _cells(thickness: int) -> list[tuple[float, float]]:
    """(start, length) of every cell along one side of a patch, as shares of the side."""
    found = []
    for at in range(0, PATCH, thickness):
        end = min(at + thickness, PATCH)
        start, stop = at / PATCH + CUT / 2 * (at > 0), end / PATCH - CUT / 2 * (end < PATCH)
        found.append((start, stop - start))
    return found


def colours_of(candidates: Sequence[Sequence[int] | str], slicings: Iterable[Slicing] = ()) -> Colours:
    """A colour for everything that blocks do: the candidates in their order, then any others that were set."""
    offered = list(map(candidate_from_json, candidates))
    others = {one for slicing in slicings for one in slicing} - set(offered)
    distinct = dict.fromkeys([*offered, *in_order(others)])
    return {one: CANDIDATE_COLOURS[i % len(CANDIDATE_COLOURS)] for i, one in enumerate(distinct)}
