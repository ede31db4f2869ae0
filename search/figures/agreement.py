"""Do the searches of several folds agree: on every block's choice, and on which architectures are good?"""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnunetv2_slicemamba.search.figures.candidates import block_axis
from nnunetv2_slicemamba.search.figures.data import FigureData
from nnunetv2_slicemamba.search.figures.style import INK, MUTED, WIDTH, colours_of, shown, token_patch
from nnunetv2_slicemamba.search.records import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEWEST_SHARED = 5
PAIRS_PER_LINE = 5
SHARED_NOTE = "Spearman's correlation of the fitness of architectures that two folds both evaluated:"


def fold_agreement(data: FigureData) -> NDArray[np.float64]:
    """(blocks,) share of pairs of folds that chose the same thickness; ValueError for fewer than two slicings."""
    slicings = [choice.slicing for choice in data.folds.values() if choice.slicing is not None]
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


def can_draw(data: FigureData) -> bool:
    return sum(choice.slicing is not None for choice in data.folds.values()) > 1


def draw_agreement(figure: Figure, data: FigureData) -> None:
    """Above every fold's choice as patches, with the share of agreeing pairs; below the rank correlation of fitness."""
    folds = {name: choice for name, choice in data.folds.items() if choice.slicing is not None}
    n = len(folds)
    pairs = _pairs(data)
    figure.set_size_inches(WIDTH, 1.75 + 0.31 * n + 0.15 * (1 + -(-len(pairs) // PAIRS_PER_LINE)))
    above, below = figure.subplots(2, 1, height_ratios=(n + 0.2, 2.4), sharex=True)
    _draw_choices(above, data)
    agreement = fold_agreement(data)
    x = np.arange(data.n_blocks)
    below.bar(x, 100 * agreement, width=0.72, color=["#0B6B4A" if share == 1 else "#8FA3B5" for share in agreement])
    chance = 100 / len(data.candidates)
    below.axhline(chance, color="#D55E00", lw=1.0, ls=(0, (4, 2)))
    below.text(data.n_blocks - 0.4, chance, " chance", fontsize=6.5, color="#A04600", va="center", clip_on=False)
    below.set_ylim(0, 105)
    below.set_yticks([0, 50, 100])
    below.set_ylabel("agreeing pairs\nof folds (%)")
    block_axis(below, data, with_stages=False)
    below.tick_params(axis="x", length=0, which="both")
    same = int((agreement == 1).sum())
    above.set_title(
        f"Folds {', '.join(folds)}: the same thickness in {same} of {data.n_blocks} blocks; "
        f"{100 * agreement.mean():.0f} % of pairs agree (chance: {chance:.3g} %)",
        pad=18,
    )
    if pairs:
        lines = [", ".join(pairs[i : i + PAIRS_PER_LINE]) for i in range(0, len(pairs), PAIRS_PER_LINE)]
        figure.supxlabel("\n".join([SHARED_NOTE, *lines]), fontsize=6.5, color=MUTED)


def _draw_choices(axes: Axes, data: FigureData) -> None:
    folds = {name: choice.slicing for name, choice in data.folds.items() if choice.slicing is not None}
    colours = colours_of([*data.candidates, *(t for slicing in folds.values() for t in slicing)])
    # a patch stays nearly square where there are few blocks
    size, tall = 0.78 * min(1, data.n_blocks / 14), 0.78
    for row, slicing in enumerate(folds.values()):
        for block, thickness in enumerate(slicing):
            token_patch(axes, block - size / 2, row - tall / 2, size, thickness, colours[tuple(thickness)], tall)
    block_axis(axes, data)
    axes.set_xlabel("")
    axes.tick_params(axis="both", length=0, which="both", labelbottom=False)
    axes.set_ylim(len(folds) - 0.45, -0.55)
    axes.set_yticks(range(len(folds)), [f"fold {name}" for name in folds])
    for spine in axes.spines.values():
        spine.set_visible(False)
    used = [t for t in colours if any(t in slicing for slicing in folds.values())]
    step = len(folds) / len(used)
    unit, right = data.n_blocks / 22, data.n_blocks - 0.5
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
    """The same in words, for those who cannot see it."""
    shares = fold_agreement(data)
    told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in zip(data.block_names, shares, strict=True))
    pairs = "; ".join(_pairs(data))
    fitness = f" Spearman's correlation of fitness between folds: {pairs}." if pairs else ""
    return f"Share of pairs of folds with the same thickness, by block: {told}.{fitness}"
