"""What do the figures of a search have in common? Type, colours that everybody can tell apart, and the token patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
INK, MUTED, RULE = "#15202B", "#4B5A68", "#D5DCE3"
BEST = "#D55E00"
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


def origin_style(origin: str) -> tuple[str, str, str]:
    """What to call an origin, its colour and marker; any that is unknown looks the same."""
    return ORIGIN_STYLES.get(origin, (origin, "#000000", "X"))


def shown(thickness: Sequence[int]) -> str:
    """2x4 as people print it."""
    return TIMES.join(map(str, thickness))


def token_patch(
    axes: Axes, x: float, y: float, size: float, thickness: Sequence[int], colour: str, height: float | None = None
) -> None:
    """A block as a patch of 8 by 8 tokens, ruled into the cells that its thicknesses make; data units, y downwards.

    height: None stands for size. It may stand beside the axes. The last two axes are height and width; in 3D a bar at
    the left shows the depth's thickness in the same scale.
    """
    from matplotlib.patches import Rectangle

    tall = size if height is None else height
    plain: Any = {"facecolor": colour, "edgecolor": "none", "clip_on": False}
    lines: Any = {"color": "white", "lw": 0.9, "clip_on": False}
    axes.add_patch(Rectangle((x, y), size, tall, **plain))
    rows, columns = thickness[-2:]
    axes.hlines([y + tall * at / 8 for at in range(rows, 8, rows)], x, x + size, **lines)
    axes.vlines([x + size * at / 8 for at in range(columns, 8, columns)], y, y + tall, **lines)
    if len(thickness) == 3:
        for at in range(0, 8, thickness[0]):
            part = tall * min(thickness[0], 8 - at) / 8 - 0.05 * tall
            axes.add_patch(Rectangle((x - 0.16 * size, y + tall * at / 8 + 0.025 * tall), 0.1 * size, part, **plain))


def colours_of(thicknesses: Sequence[Sequence[int]]) -> dict[tuple[int, ...], str]:
    """A colour for every thickness, candidates first."""
    distinct = dict.fromkeys(tuple(thickness) for thickness in thicknesses)
    return {thickness: CANDIDATE_COLOURS[i % len(CANDIDATE_COLOURS)] for i, thickness in enumerate(distinct)}
