"""Fitness over the generations, and the origin of each generation's best architecture, as a figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetv2_slicemamba.search.figures.data import FigureData
from nnunetv2_slicemamba.search.figures.style import BEST, FAINT, GRID, INK, MAIN, MUTED, PAPER, WIDTH, origin_style
from nnunetv2_slicemamba.search.proposals.ranking import chosen_record
from nnunetv2_slicemamba.search.records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW = 100  # evaluations up to which their dots are large


def draw_generations(figure: Figure, data: FigureData) -> None:
    """Every evaluation, mean and standard deviation per generation, each generation's best with its origin's marker."""
    from matplotlib.ticker import MaxNLocator

    figure.set_size_inches(WIDTH, 3.5)
    axes = figure.subplots()
    by_generation = generations_of(data)
    numbers = np.array(list(by_generation))
    fitness = [np.array([r.fitness for r in records]) for records in by_generation.values()]
    low = lower_limit(np.concatenate(fitness))
    rng = np.random.default_rng(0)
    hidden, size = 0, 3 if len(data.records) > FEW else 10
    for number, values in zip(numbers, fitness, strict=True):
        seen = values[values >= low]
        hidden += len(values) - len(seen)
        x = number + rng.uniform(-0.22, 0.22, len(seen))
        axes.scatter(x, seen, s=size, color=FAINT, lw=0, label="evaluation" if number == numbers[0] else "_")
    mean = np.array([values.mean() for values in fitness])
    sd = np.array([values.std(ddof=1) if len(values) > 1 else 0.0 for values in fitness])
    axes.fill_between(
        numbers,
        np.maximum(mean - sd, low),
        mean + sd,
        color=MAIN,
        alpha=0.16,
        lw=0,
        label="mean \N{PLUS-MINUS SIGN} SD",
    )
    # a line of one generation is a point
    mark: Any = {"marker": "_", "ms": 14, "mew": 1.4} if len(numbers) == 1 else {}
    axes.plot(numbers, mean, color=MAIN, lw=1.4, ls=(0, (5, 1.5)), label="mean", **mark)
    # what may be chosen; nothing, as long as all architectures exceed a limit
    bests = [chosen_record(records, data.cost) for records in by_generation.values()]
    best_so_far = np.fmax.accumulate([math.nan if best is None else best.fitness for best in bests])
    axes.step(numbers, best_so_far, where="post", color=INK, lw=1.0, label="best so far")
    for origin in dict.fromkeys(best.origin for best in bests if best is not None):
        name, colour, marker = origin_style(origin)
        own = [best for best in bests if best is not None and best.origin == origin]
        axes.scatter(
            [best.generation for best in own],
            [best.fitness for best in own],
            s=26,
            marker=marker,
            color=colour,
            ec=PAPER,
            lw=0.5,
            zorder=4,
            label=f"generation's best: {name}",
        )
    winner = data.best
    axes.scatter(
        [winner.generation],
        [winner.fitness],
        s=120,
        marker="*",
        color=BEST,
        ec=PAPER,
        lw=0.6,
        zorder=5,
        label=f"chosen: {winner.fitness:.4f}",
    )
    high = max(values.max() for values in fitness)
    axes.set_ylim(low, high + 0.1 * ((high - low) or 0.01))
    axes.set_xlim(numbers[0] - 0.6, numbers[-1] + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    axes.set_xlabel("generation (0: random)")
    axes.set_ylabel(f"fitness ({data.fitness_title})")
    axes.grid(axis="y", color=GRID, lw=0.5)
    axes.set_axisbelow(True)
    if hidden:
        note = f"{hidden} of {sum(map(len, fitness))} evaluations lie below"
        axes.text(0.995, 0.01, note, transform=axes.transAxes, ha="right", va="bottom", fontsize=6.5, color=MUTED)
    figure.legend(loc="outside lower center", ncols=4, handlelength=1.8, columnspacing=1.4, labelcolor=MUTED)


def generations_of(data: FigureData) -> dict[int, list[Record]]:
    """The records of defined fitness by generation; generations without any are left out."""
    found: dict[int, list[Record]] = {}
    for record in data.records:
        if not math.isnan(record.fitness):
            found.setdefault(record.generation, []).append(record)
    return dict(sorted(found.items()))


def lower_limit(fitness: np.ndarray) -> float:
    """Just below the lowest fitness, unless far outliers would flatten the rest."""
    lowest, lower, high = fitness.min(), np.quantile(fitness, 0.05), fitness.max()
    limit = max(lowest, lower - 0.5 * (high - lower))
    return float(limit - 0.05 * ((high - limit) or 0.01))


def describe_generations(data: FigureData) -> str:
    """The figure in words, for those who cannot see it."""
    by_generation = generations_of(data)
    first, last = (by_generation[key] for key in (min(by_generation), max(by_generation)))
    means = [math.fsum(r.fitness for r in records) / len(records) for records in (first, last)]
    winner = data.best
    return (
        f"Fitness of {len(data.records)} evaluations in {len(by_generation)} generations. The mean goes from "
        f"{means[0]:.4f} in the first to {means[1]:.4f} in the last generation; the best, {winner.fitness:.4f}, is a "
        f"{origin_style(winner.origin)[0]} of generation {winner.generation}."
    )
