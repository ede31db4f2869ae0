"""Candidates that the best architectures hold at each block, as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_slicemamba.search.figures.block_axis import BLOCK_LABEL, block_axis
from nnunetv2_slicemamba.search.figures.data import FigureData
from nnunetv2_slicemamba.search.figures.style import BEST, INK, MUTED, PAPER, WIDTH, shown
from nnunetv2_slicemamba.search.records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_candidates(figure: Figure, data: FigureData) -> None:
    """The share of every candidate at every block among the best, as a grid with its numbers; stars: the chosen."""
    share, n = candidate_shares(data.eligible, len(data.candidates), data.n_best)
    figure.set_size_inches(WIDTH, 1.5 + 0.24 * len(data.candidates))
    axes = figure.subplots()
    image = axes.imshow(share, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    chosen = data.best.architecture
    for block in range(data.n_blocks):
        for candidate in range(len(data.candidates)):
            value = share[candidate, block]
            if value > 0:
                colour = PAPER if value > 0.55 else MUTED
                axes.text(block, candidate, f"{100 * value:.0f}", ha="center", va="center", fontsize=5.5, color=colour)
        axes.scatter(block + 0.36, chosen[block] - 0.3, s=14, marker="*", color=BEST, ec=PAPER, lw=0.3, zorder=3)
    block_axis(axes, data.stages)
    axes.set_xlabel(BLOCK_LABEL)
    for line in axes.lines:
        line.set(color=INK, zorder=3)
    axes.set_yticks(range(len(data.candidates)), [shown(thickness) for thickness in data.candidates])
    axes.set_ylabel("thickness (tokens)")
    axes.set_yticks(np.arange(len(data.candidates) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=PAPER, lw=0.8)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    even = f"even: {100 / len(data.candidates):.3g} %"
    axes.set_title(f"Share in % among the best {n} of {len(data.records)} architectures (star: chosen; {even})", pad=18)
    bar = figure.colorbar(image, ax=axes, pad=0.01, fraction=0.04, ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(["0 %", "50 %", "100 %"], fontsize=6.5)
    bar.outline.set_visible(False)


def candidate_shares(records: Sequence[Record], n_candidates: int, n_best: int) -> tuple[np.ndarray, int]:
    """Shares of the candidates at each block among the best architectures.

    Returns (candidates, blocks) float64 shares, every column's sum 1, and the number of architectures, at most n_best.
    """
    defined = [record for record in records if not math.isnan(record.fitness)]
    best = sorted(defined, key=lambda record: -record.fitness)[:n_best]
    genes = np.array([record.architecture for record in best])  # (architectures, blocks)
    return np.stack([(genes == candidate).mean(axis=0) for candidate in range(n_candidates)]), len(best)


def describe_candidates(data: FigureData) -> str:
    """The figure in words, for those who cannot see it."""
    share, n = candidate_shares(data.eligible, len(data.candidates), data.n_best)
    top = share.argmax(axis=0)
    told = ", ".join(
        f"{name} {shown(data.candidates[top[i]])} {100 * share[top[i], i]:.0f} %"
        for i, name in enumerate(data.block_names)
    )
    return f"Commonest thickness among the best {n} architectures and its share: {told}."
