"""Agreement between the folds' searches: on every block's thickness, and on which architectures are good.

The report shows the same drawing of the thicknesses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_slicemamba.search.figures.block_axis import BLOCK_LABEL, block_axis
from nnunetv2_slicemamba.search.figures.data import FigureData
from nnunetv2_slicemamba.search.figures.stages import Stage
from nnunetv2_slicemamba.search.figures.style import (
    BAR,
    BEST,
    GOOD,
    INK,
    MUTED,
    WIDTH,
    Colours,
    colours_of,
    shown,
    token_patch,
)
from nnunetv2_slicemamba.search.records import History
from nnunetv2_slicemamba.slicing.candidates import Slicing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEWEST_SHARED = 5
PAIRS_PER_LINE = 5
SHARED_NOTE = "Spearman's correlation of the fitness of architectures that two folds both evaluated:"
# inches: a fold's row of patches, the bars, and what each line of blocks needs for its labels
FOLD_ROW, BARS, LABELS = 0.29, 0.62, 0.5


def thickness_agreement(slicings: Sequence[Slicing]) -> NDArray[np.float64]:
    """(blocks,) share of pairs of folds that have the same thickness; ValueError for fewer than two slicings."""
    if len(slicings) < 2:
        raise ValueError("an agreement needs the slicings of at least two folds")
    return np.array([np.mean([a == b for a, b in combinations(block, 2)]) for block in zip(*slicings, strict=True)])


def fitness_agreement(one: History, other: History) -> tuple[float, int]:
    """Spearman's correlation of the fitness of the architectures that two folds both evaluated, and their number.

    Searches with the same seed share at least their random generation. NaN for fewer than five, or equal values.
    """
    from scipy import stats

    first = {tuple(a): f for a, f in one if not math.isnan(f)}
    second = {tuple(a): f for a, f in other if not math.isnan(f)}
    shared = [a for a in first if a in second]
    x, y = [first[a] for a in shared], [second[a] for a in shared]
    if len(shared) < FEWEST_SHARED or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan, len(shared)
    return float(stats.spearmanr(x, y).statistic), len(shared)


def chosen_slicings(data: FigureData) -> dict[str, Slicing]:
    """The slicing of every fold that has one."""
    return {name: choice.slicing for name, choice in data.folds.items() if choice.slicing is not None}


def draw_agreement(figure: Figure, data: FigureData) -> None:
    """The folds' thicknesses on one line, with a title, a key, and the rank correlation of fitness below."""
    slicings = chosen_slicings(data)
    pairs = _pairs(data)
    colours = colours_of(data.candidates, slicings.values())
    height = draw_thicknesses(figure, slicings, data.stages, colours, 1 / len(data.candidates), WIDTH)
    figure.set_size_inches(WIDTH, height + 0.45 + 0.15 * (1 + -(-len(pairs) // PAIRS_PER_LINE)))
    axes, below = figure.axes
    below.set_xlabel(BLOCK_LABEL)
    _key(axes, slicings, colours, data.n_blocks)
    shares = thickness_agreement(list(slicings.values()))
    same = int((shares == 1).sum())
    axes.set_title(
        f"Folds {', '.join(slicings)}: the same thickness in {same} of {data.n_blocks} blocks; "
        f"{100 * shares.mean():.0f} % of pairs agree (chance: {100 / len(data.candidates):.3g} %)",
        pad=18,
    )
    if pairs:
        lines = [", ".join(pairs[i : i + PAIRS_PER_LINE]) for i in range(0, len(pairs), PAIRS_PER_LINE)]
        figure.supxlabel("\n".join([SHARED_NOTE, *lines]), fontsize=6.5, color=MUTED)


def draw_thicknesses(
    figure: Figure,
    slicings: Mapping[str, Slicing],
    stages: Sequence[Stage],
    colours: Colours,
    chance: float,
    width: float,
    per_line: int | None = None,
) -> float:
    """Draws every fold's thicknesses as patches, and below each block the share of pairs of folds that agree on it.

    slicings: by the fold's name. chance: the share that uniformly drawn thicknesses would have. width: of the figure,
    inches. per_line: blocks on one line, None for all. Sizes the figure; returns the height in inches that the lines
    need, without a title.
    """
    shares = thickness_agreement(list(slicings.values()))
    n_blocks = len(shares)
    per_line = per_line or n_blocks
    n_lines = -(-n_blocks // per_line)
    rows = len(slicings) * FOLD_ROW
    # a patch stays nearly square where there are few blocks, and a 3D one has room for its tab
    room = 0.78 if len(stages[0].reduction) == 2 else 0.7
    patch = min(room, FOLD_ROW / (0.8 * width / per_line))
    grid = figure.subplots(2 * n_lines, 1, height_ratios=(rows, BARS) * n_lines, squeeze=False)[:, 0]
    for line in range(n_lines):
        above, below = grid[2 * line : 2 * line + 2]
        start = line * per_line
        blocks = range(start, min(start + per_line, n_blocks))
        _draw_patches(above, slicings, stages, colours, blocks, patch)
        _draw_shares(below, shares, stages, chance, blocks)
        for axes in (above, below):  # blocks of a shorter last line are as wide as the others
            axes.set_xlim(start - 0.5, start + per_line - 0.5)
    height = n_lines * (rows + BARS + LABELS)
    figure.set_size_inches(width, height)
    return height


def _draw_patches(
    axes: Axes,
    slicings: Mapping[str, Slicing],
    stages: Sequence[Stage],
    colours: Colours,
    blocks: range,
    size: float,
) -> None:
    """Draws a row of patches per fold. size: width of a patch, as a share of the distance between blocks."""
    block_axis(axes, stages, blocks)
    tall = 0.78
    for row, slicing in enumerate(slicings.values()):
        for block in blocks:
            token_patch(axes, block - size / 2, row - tall / 2, size, slicing[block], colours[slicing[block]], tall)
    axes.grid(False)
    axes.tick_params(axis="both", length=0, which="both", labelbottom=False)
    axes.set_ylim(len(slicings) - 0.45, -0.55)
    axes.set_yticks(range(len(slicings)), [f"fold {name}" for name in slicings])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_shares(
    axes: Axes, shares: NDArray[np.float64], stages: Sequence[Stage], chance: float, blocks: range
) -> None:
    block_axis(axes, stages, blocks, with_stages=False)
    own = shares[blocks.start : blocks.stop]
    axes.bar(blocks, 100 * own, width=0.72, color=[GOOD if share == 1 else BAR for share in own])
    axes.axhline(100 * chance, color=BEST, lw=1.0, ls=(0, (4, 2)))
    place: Any = {"transform": axes.get_yaxis_transform(), "va": "center", "clip_on": False}
    axes.text(1, 100 * chance, " chance", fontsize=6.5, color=MUTED, **place)
    axes.grid(False)
    axes.set_ylim(0, 105)
    axes.set_yticks([0, 50, 100])
    axes.set_ylabel("agreeing\npairs (%)")
    axes.tick_params(axis="x", length=0, which="both")


def _key(axes: Axes, slicings: Mapping[str, Slicing], colours: Colours, n_blocks: int) -> None:
    """Draws every thickness that occurs, at the right of the folds' patches."""
    used = [thickness for thickness in colours if any(thickness in slicing for slicing in slicings.values())]
    step = len(slicings) / len(used)
    unit, right = n_blocks / 22, n_blocks - 0.5
    height = min(0.8 * step, 0.62)
    for i, thickness in enumerate(used):
        y = -0.5 + (i + 0.5) * step
        token_patch(axes, right + 0.5 * unit, y - height / 2, 0.62 * unit, thickness, colours[thickness], height)
        axes.text(right + 1.35 * unit, y, shown(thickness), fontsize=6.5, va="center", color=INK)


def _pairs(data: FigureData) -> list[str]:
    told = []
    for one, other in combinations(data.folds, 2):
        value, number = fitness_agreement(data.folds[one].history, data.folds[other].history)
        if not math.isnan(value):
            told.append(f"{one}-{other}: {value:.2f} (n = {number})")
    return told


def describe_agreement(data: FigureData) -> str:
    """The figure in words, for those who cannot see it."""
    shares = thickness_agreement(list(chosen_slicings(data).values()))
    told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in zip(data.block_names, shares, strict=True))
    pairs = "; ".join(_pairs(data))
    fitness = f" Spearman's correlation of fitness between folds: {pairs}." if pairs else ""
    return f"Share of pairs of folds with the same thickness, by block: {told}.{fitness}"
