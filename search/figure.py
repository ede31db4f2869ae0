"""What did the search do, in one picture?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .atomic import replacing
from .records import CROSSOVER, MUTANT, NSGA2_ORIGIN, RANDOM, TPE_ORIGIN, Record, best_record

if TYPE_CHECKING:  # imported where used: a training needs no figure
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart.
_COLOURS = {RANDOM: "#999999", MUTANT: "#0072B2", CROSSOVER: "#E69F00", TPE_ORIGIN: "#0072B2", NSGA2_ORIGIN: "#0072B2"}
_LABELS = {RANDOM: "random", MUTANT: "mutant", CROSSOVER: "crossover", TPE_ORIGIN: "TPE", NSGA2_ORIGIN: "NSGA-II"}
_WINNER = "#D55E00"
_TIMES = "\N{MULTIPLICATION SIGN}"
_STYLE: Any = {
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
}


def write_search_figure(
    records: Sequence[Record],
    path: str | Path,
    candidates: Sequence[str],
    title: str = "",
    stages: Sequence[tuple[str, int]] = (),
    n_best: int = 50,
) -> None:
    """Write a search's figure as PNG, atomically; 7.2 x 5.4 inches at 200 dots per inch.

    Above, the fitness of each evaluation by origin, the best so far and each generation's mean; below, how often each
    candidate appears at each block among the n_best architectures, and what the winner has.

    records: of the search, ordered by (generation, index). candidates: what to call every candidate index, e.g. "2x4".
    stages: (name, number of blocks) of the network's stages in network order, to be told apart below.
    Raises ValueError without any record of defined fitness.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    winner = best_record(records)
    if winner is None:
        raise ValueError("there is nothing to draw: no record has a defined fitness")
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 5.4), layout="constrained")
        above, below = figure.subplots(2, 1, height_ratios=(3, 2))
        if title:
            figure.suptitle(title, fontsize=9)
        _draw_progress(above, records, winner)
        _draw_candidates(figure, below, records, candidates, winner, stages, n_best)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=200, format="png")


def _draw_progress(axes: Axes, records: Sequence[Record], winner: Record) -> None:
    number = np.arange(1, len(records) + 1)
    fitness = np.array([record.fitness for record in records])
    generation = np.array([record.generation for record in records])
    low = _lower_limit(fitness)
    for origin, colour in _COLOURS.items():
        of_origin = np.array([record.origin == origin for record in records])
        shown, hidden = of_origin & (fitness >= low), of_origin & (fitness < low)
        if of_origin.any():
            axes.scatter(number[shown], fitness[shown], s=7, color=colour, alpha=0.75, lw=0, label=_LABELS[origin])
            axes.scatter(
                number[hidden], np.full(hidden.sum(), low), s=14, marker="v", color=colour, lw=0, clip_on=False
            )
    for g in np.unique(generation):
        own = (generation == g) & ~np.isnan(fitness)
        first, last = number[generation == g][[0, -1]]
        if g % 2:
            axes.axvspan(first - 0.5, last + 0.5, color="#F2F2F2", lw=0, zorder=0)
        if own.any():
            mean = max(float(fitness[own].mean()), low)
            label = "generation mean" if g == generation[0] else "_"  # an underscore keeps it out of the legend
            axes.hlines(mean, first - 0.5, last + 0.5, color="#CC79A7", lw=1.6, label=label)
    best = np.fmax.accumulate(fitness)
    axes.step(number, best, where="post", color="black", lw=1.0, label="best so far")
    if (fitness < low).any():
        axes.scatter([], [], s=14, marker="v", color="black", lw=0, label="below the axis")
    at = records.index(winner) + 1
    axes.scatter([at], [winner.fitness], s=60, marker="*", color=_WINNER, lw=0, zorder=5)
    high = float(np.nanmax(fitness))
    axes.set_ylim(low, high + 0.06 * ((high - low) or 0.01))
    axes.set_xlim(0.5, len(records) + 0.5)
    axes.set_xlabel("evaluation (shading: every second generation)")
    axes.set_ylabel("fitness (mean foreground Dice)")
    axes.set_title(f"Winner (star): {winner.fitness:.4f} at evaluation {at} of {len(records)}", pad=20)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 0.98),
        ncols=6,
        handlelength=1.4,
        handletextpad=0.4,
        columnspacing=1.2,
        borderpad=0.2,
    )


def _lower_limit(fitness: np.ndarray) -> float:
    """Just below the lowest fitness, or far outliers (drawn as triangles at the edge) would flatten the rest."""
    lowest, lower, high = np.nanmin(fitness), np.nanquantile(fitness, 0.05), np.nanmax(fitness)
    limit = max(lowest, lower - 0.5 * (high - lower))
    return float(limit - 0.05 * ((high - limit) or 0.01))


def _draw_candidates(
    figure: Figure,
    axes: Axes,
    records: Sequence[Record],
    candidates: Sequence[str],
    winner: Record,
    stages: Sequence[tuple[str, int]],
    n_best: int,
) -> None:
    share, n = candidate_shares(records, len(candidates), n_best)
    n_blocks = share.shape[1]
    image = axes.imshow(share, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.scatter(range(n_blocks), winner.architecture, s=42, marker="*", color=_WINNER, lw=0)
    axes.set_xticks(range(n_blocks))
    axes.set_yticks(range(len(candidates)), [name.replace("x", _TIMES) for name in candidates])
    axes.set_xlabel("block, in network order")
    axes.set_ylabel("thickness")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xticks(np.arange(n_blocks + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(candidates) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=1.0)
    axes.tick_params(which="minor", length=0)
    end = 0
    for name, n_of_stage in stages:
        axes.text(end + (n_of_stage - 1) / 2, -0.6, name, ha="center", va="bottom", fontsize=7, color="#444444")
        end += n_of_stage
        if end < n_blocks:
            axes.axvline(end - 0.5, color="black", lw=0.8)
    which = f"the best {n} architectures" if n > 1 else "the only architecture"
    axes.set_title(f"Candidates at each block among {which} (stars: the winner's)", pad=16 if stages else 6)
    figure.colorbar(image, ax=axes, label="share", pad=0.01, fraction=0.04)


def candidate_shares(records: Sequence[Record], n_candidates: int, n_best: int) -> tuple[np.ndarray, int]:
    """How often each candidate appears at each block among the best architectures.

    Returns (candidates, blocks) float64 shares, every column's sum 1, and the number of architectures, at most n_best.
    """
    defined = [record for record in records if not math.isnan(record.fitness)]
    best = sorted(defined, key=lambda record: -record.fitness)[:n_best]
    genes = np.array([record.architecture for record in best])  # (architectures, blocks)
    return np.stack([(genes == candidate).mean(axis=0) for candidate in range(n_candidates)]), len(best)
