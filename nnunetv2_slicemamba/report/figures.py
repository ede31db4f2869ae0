"""Training, search, slicing and Dice as figures small enough for a phone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from nnunetv2_slicemamba.search import Slicing
from nnunetv2_slicemamba.search.figures.agreement import draw_thicknesses
from nnunetv2_slicemamba.search.figures.network import draw_slicing
from nnunetv2_slicemamba.search.figures.stages import Stage
from nnunetv2_slicemamba.search.figures.style import INK, MUTED, PAPER, Colours

from .models import Model
from .results import CaseDice
from .searches import Search
from .svg import SERIES, matplotlib_style, themed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Lines that go on top of each other differ in more than their colour.
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
WIDTH, HEIGHT = 3.6, 2.5
# blocks beside each other that a phone can show: of one side of the network, and of all folds
PER_SIDE, PER_LINE = 3, 11
# curves of fewer epochs are points: they are marked
MARKED_EPOCHS = 12


def too_short(model: Model) -> str:
    """The numbers of a model's only epoch in a sentence, in place of curves; empty where there are curves."""
    folds = [(fold.name, fold.training) for fold in model.folds if fold.training and fold.training.epochs]
    if not folds or max(training.epochs for _, training in folds) > 1:
        return ""
    told = "; ".join(
        f"fold {fold}: loss {training.train_loss[0]:.3f} in training and {training.validation_loss[0]:.3f} in "
        f"validation, pseudo Dice {training.pseudo_dice[0]:.3f}"
        for fold, training in folds
    )
    return f"One epoch is finished, too few for a curve. {told[0].upper()}{told[1:]}."


def training_panels(model: Model, name: str) -> list[Markup]:
    """Losses, pseudo Dice and epoch time of a model's trainings, a line per fold.

    name: unique in the page. Empty if no fold has finished two epochs.
    """
    folds = [
        (i, fold.name, fold.training) for i, fold in enumerate(model.folds) if fold.training and fold.training.epochs
    ]
    if not folds or max(training.epochs for _, _, training in folds) < 2:
        return []
    listed = ", ".join(fold for _, fold, _ in folds)
    longest = max(training.epochs for _, _, training in folds)
    marks: Any = {"marker": "o", "ms": 3.5} if longest < MARKED_EPOCHS else {}

    def draw_losses(axes: Axes) -> None:
        for i, fold, training in folds:
            epochs = np.arange(1, training.epochs + 1)
            sides = (("training", training.train_loss, "-"), ("validation", training.validation_loss, DASHES[2]))
            for side, losses, dashes in sides:
                axes.plot(epochs, losses, color=SERIES[i % 8], ls=dashes, lw=1.6, label=f"fold {fold}, {side}", **marks)

    def drawing_of(values: str) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            for i, fold, training in folds:
                epochs, drawn = np.arange(1, training.epochs + 1), getattr(training, values)
                style = {"color": SERIES[i % 8], "ls": DASHES[i % 5], "lw": 1.6, **marks}
                axes.plot(epochs, drawn, label=f"fold {fold}", **style)

        return draw

    charts: tuple[tuple[str, str, str, Callable[[Axes], None]], ...] = (
        ("Loss", "minus soft Dice + cross-entropy", "train_loss", draw_losses),
        ("Pseudo Dice", "of validation patches", "pseudo_dice", drawing_of("pseudo_dice")),
        ("Epoch time", "seconds", "seconds", drawing_of("seconds")),
    )
    panels = []
    for i, (title, unit, values, draw) in enumerate(charts):
        last = "; ".join(f"fold {fold}: {getattr(training, values)[-1]:.4g}" for _, fold, training in folds)
        label = f"{title} ({unit}) over the epochs of {model.identifier}, fold {listed}. Last epoch: {last}."
        panels.append(chart(f"{name}-{i}", label, title, unit, draw, longest))
    return panels


def chart(
    name: str, label: str, title: str, unit: str, draw: Callable[[Axes], None], epochs: int, across: str = "epoch"
) -> Markup:
    """A small chart over epochs or generations, its legend below where it covers nothing."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with rc_context(matplotlib_style()):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.set_title(title)
        axes.text(1, 1.03, unit, transform=axes.transAxes, ha="right", va="bottom", color=MUTED, fontsize=8)
        axes.set_xlabel(across, labelpad=1)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.margins(x=0.03 if epochs > 1 else 0.5)
        handles, labels = axes.get_legend_handles_labels()
        if len(labels) > 1:
            figure.legend(
                handles,
                labels,
                loc="outside lower center",
                ncols=2 if len(labels) > 3 else 3,
                columnspacing=1.2,
                handlelength=2.2,
            )
            # the legend's lines are added to the chart, not taken from it
            rows = math.ceil(len(labels) / (2 if len(labels) > 3 else 3))
            figure.set_figheight(HEIGHT + 0.17 * rows)
        return themed(figure, name, label)


def search_panel(search: Search, fold: str, name: str) -> Markup | None:
    """Fitness per generation: every evaluation, mean, spread and the best so far. None without a defined fitness."""
    best = search.best
    if best is None:
        return None
    generations = search.generations

    def draw(axes: Axes) -> None:
        x = np.array([generation.number for generation in generations])
        low, high = (np.array([getattr(g, key) for g in generations]) for key in ("low", "high"))
        axes.fill_between(x, low, high, color=SERIES[0], alpha=0.15, lw=0, label="range")
        drawn = [record for record in search.records if not math.isnan(record.fitness)]
        axes.scatter([r.generation for r in drawn], [r.fitness for r in drawn], s=9, color=SERIES[0], alpha=0.6, lw=0)
        axes.plot(x, [g.mean for g in generations], color=SERIES[0], ls=DASHES[1], lw=1.6, label="mean")
        axes.step(x, [g.best_so_far for g in generations], where="post", color=SERIES[1], lw=1.8, label="best so far")
        axes.scatter(
            [best.generation],
            [best.fitness],
            s=130,
            marker="*",
            color=SERIES[1],
            ec=PAPER,
            lw=0.8,
            zorder=5,
            clip_on=False,
        )

    label = (
        f"Fitness of the {len(search.records)} architectures of fold {fold}'s search "
        f"over {len(generations)} generations; "
        f"best {best.fitness:.4f} in generation {best.generation}, mean of the first generation "
        f"{generations[0].mean:.4f}, of the last {generations[-1].mean:.4f}."
    )
    return chart(name, label, f"Fold {fold}", search.fitness_title, draw, len(generations), "generation")


def slicing_panel(slicing: Slicing, stages: Sequence[Stage], colours: Colours, name: str, label: str) -> Markup:
    """A slicing on the network, as the search's own page draws it."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(matplotlib_style()):
        figure = Figure()
        figure.set_size_inches(draw_slicing(figure.add_axes((0, 0, 1, 1)), slicing, stages, colours, PER_SIDE))
        return themed(figure, name, label)


def agreement_panel(
    slicings: Mapping[str, Slicing], stages: Sequence[Stage], colours: Colours, chance: float, name: str, label: str
) -> Markup:
    """Every fold's thicknesses, as the search's own page draws them, on as many lines as a phone needs.

    slicings: two or more, by fold. chance: share of agreeing pairs of folds if thicknesses were drawn uniformly.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(matplotlib_style()):
        figure = Figure(layout="constrained")
        draw_thicknesses(figure, slicings, stages, colours, chance, WIDTH, PER_LINE)
        return themed(figure, name, label)


def dice_panel(groups: Sequence[tuple[str, Sequence[tuple[str, Sequence[CaseDice]]]]], name: str) -> Markup | None:
    """Dice of every case: a line of dots per fold, below the model's name, with the mean as a bar.

    groups: (model, (fold, cases)). None without any case of defined Dice.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = [
        (model, fold, [c.mean for c in cases if not math.isnan(c.mean)])
        for model, folds in groups
        for fold, cases in folds
    ]
    rows = [row for row in rows if row[2]]
    if not rows:
        return None
    style = matplotlib_style()
    style |= {"axes.grid.axis": "x", "axes.spines.left": False}
    with rc_context(style):
        models = list(dict.fromkeys(model for model, _, _ in rows))
        figure = Figure(figsize=(WIDTH, 0.6 + 0.24 * len(rows) + 0.34 * len(models)), layout="constrained")
        axes = figure.subplots()
        at, ticks = 0.0, []
        for model in models:
            at += 1.5
            who, _, rest = model.partition("__")
            lines = ((at - 0.35, who, INK, "bold"), (at + 0.15, rest.replace("__", ", "), MUTED, "normal"))
            for y, text, colour, weight in lines:
                place = axes.get_yaxis_transform()
                written = axes.text(
                    0, y, text, transform=place, fontsize=7.5, va="center", color=colour, fontweight=weight
                )
                # it may be wider than the axes, which must not make room for it
                written.set_in_layout(False)
            for i, (_, fold, values) in enumerate(row for row in rows if row[0] == model):
                at += 1
                ticks.append((at, fold))
                axes.scatter(values, np.full(len(values), at), s=20, color=SERIES[i % 8], alpha=0.55, lw=0)
                axes.vlines(float(np.mean(values)), at - 0.32, at + 0.32, color=INK, lw=2)
        axes.set_yticks([y for y, _ in ticks], [fold for _, fold in ticks])
        axes.set_ylim(at + 0.7, 0.4)
        # Dice near 1 is where models differ, but a dot at 0 must not disappear
        axes.set_xlim(min(0.95, *(min(values) for _, _, values in rows)) - 0.02, 1.005)
        axes.set_xlabel("Dice of a case (bar: mean)", labelpad=1)
        means = "; ".join(
            f"{model}, {fold}: {np.mean(values):.4f} over {len(values)} cases" for model, fold, values in rows
        )
        return themed(figure, name, f"Dice of every case, and its mean. {means}.")
