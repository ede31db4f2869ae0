"""Fitness of every architecture against its measured cost, with the Pareto front, as a figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from nnunetv2_slicemamba.search.figures.data import FigureData
from nnunetv2_slicemamba.search.figures.style import BAR, BEST, FAINT, GRID, INK, MAIN, MUTED, PAPER, WIDTH
from nnunetv2_slicemamba.search.objectives import Cost
from nnunetv2_slicemamba.search.proposals.ranking import pareto_front
from nnunetv2_slicemamba.search.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_pareto(figure: Figure, data: FigureData, cost: Cost) -> None:
    """Every evaluation by cost and fitness; crosses: above the limit. The front as steps, the chosen one as a star."""
    figure.set_size_inches(WIDTH, 3.5)
    axes = figure.subplots()
    inside, outside = feasible_and_not(data, cost)
    _scatter(axes, inside, s=9, color=BAR, lw=0, label="evaluation")
    if outside:
        _scatter(axes, outside, s=12, marker="x", color=FAINT, lw=0.8, label="above the limit")
    front = pareto_front(data.records, cost)
    x, y = _costs(front), [record.fitness for record in front]
    axes.step(x, y, where="post", color=INK, lw=1.0, zorder=2)
    axes.scatter(x, y, s=26, marker="D", color=MAIN, ec=PAPER, lw=0.5, zorder=3, label="Pareto front")
    best = data.best
    assert best.cost is not None
    label = f"chosen: {best.fitness:.4f}, {cost.shown(best.cost)}"
    axes.scatter([best.cost], [best.fitness], s=120, marker="*", color=BEST, ec=PAPER, lw=0.6, zorder=5, label=label)
    if cost.limit is not None:
        shown = f"limit: {cost.limit:g} {cost.unit}"
        axes.axvline(cost.limit, color=BEST, lw=1.0, ls=(0, (4, 2)), zorder=1, label=shown)
    axes.set_xlabel(f"{cost.title}, one patch, batch 1")
    axes.set_ylabel(f"fitness ({data.fitness_title})")
    axes.ticklabel_format(useOffset=False)
    axes.grid(color=GRID, lw=0.5)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, handlelength=1.8, columnspacing=1.4, labelcolor=MUTED)


def feasible_and_not(data: FigureData, cost: Cost) -> tuple[list[Record], list[Record]]:
    """The records of defined fitness and measured cost that may be chosen, and those above the limit."""
    drawn = [r for r in data.records if r.cost is not None and not math.isnan(r.fitness)]
    return [r for r in drawn if cost.allows(r.cost)], [r for r in drawn if not cost.allows(r.cost)]


def describe_pareto(data: FigureData, cost: Cost) -> str:
    """The figure in words, for those who cannot see it."""
    inside, outside = feasible_and_not(data, cost)
    costs = _costs(inside)
    above = f" {len(outside)} more exceed the limit." if outside else ""
    points = "; ".join(f"{r.fitness:.4f} at {cost.shown(r.cost)}" for r in pareto_front(data.records, cost) if r.cost)
    return (
        f"Fitness against {cost.title} of {len(inside)} architectures, which take {cost.shown(min(costs))} to "
        f"{cost.shown(max(costs))}.{above} Pareto front: {points}. Chosen: {data.best.fitness:.4f}."
    )


def _costs(records: list[Record] | tuple[Record, ...]) -> list[float]:
    return [record.cost for record in records if record.cost is not None]


def _scatter(axes: Axes, records: list[Record], **style: Any) -> None:
    axes.scatter(_costs(records), [record.fitness for record in records], **style)
