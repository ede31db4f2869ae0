"""Importance of every block's choice for the fitness, by Optuna, as a figure."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnunetv2_slicemamba.search.figures.block_axis import BLOCK_LABEL, block_axis
from nnunetv2_slicemamba.search.figures.data import FigureData
from nnunetv2_slicemamba.search.figures.style import BEST, FAINT, MAIN, MUTED, WIDTH
from nnunetv2_slicemamba.search.ledger.storage import quiet_optuna
from nnunetv2_slicemamba.search.ledger.trials import trial_of
from nnunetv2_slicemamba.search.records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST = 20  # evaluations below which a forest sees nothing but chance
TREES, DEPTH = 16, 6
METHOD = f"functional ANOVA, {TREES} trees of depth {DEPTH}"


@dataclass(frozen=True)
class Importance:
    """share: (blocks,) of the fitness's variance that the blocks explain by themselves, sum 1. chance: the highest
    share, in the same unit, of a block whose choices were shuffled among the architectures."""

    share: NDArray[np.float64]
    chance: float


def importance_of(records: Sequence[Record], n_candidates: int) -> Importance | str:
    """Share of the fitness that every block's choice explains by itself (Hutter et al., ICML 2014), or a text that says
    why there is none.

    records: of all evaluations; those of undefined fitness are left out. Shares add up to 1 even where fitness is
    nothing but noise. Therefore every block also takes part with its choices shuffled: what explains no more than the
    best of these copies cannot be told from chance (as in Boruta, Kursa and Rudnicki, 2010).
    """
    defined = [record for record in records if not math.isnan(record.fitness)]
    if len(defined) < FEWEST:
        return f"importances need at least {FEWEST} evaluations, there are {len(defined)}"
    fitness = np.array([record.fitness for record in defined])
    if np.ptp(fitness) == 0:
        return "all architectures have the same fitness, so no choice is more important than another"
    genes = np.array([record.architecture for record in defined])
    shuffled = np.random.default_rng(0).permuted(genes, axis=0)
    shares = _fanova(np.concatenate([genes, shuffled], axis=1), fitness, n_candidates)
    own, copies = np.split(shares, 2)
    total = own.sum()
    if total == 0:
        return "no block's choice explains any of the fitness"
    return Importance(own / total, float(copies.max() / total))


def _fanova(genes: NDArray[np.int64], fitness: NDArray[np.float64], n_candidates: int) -> NDArray[np.float64]:
    """Optuna's importance of every column. genes: (architectures, columns). Returns (columns,)."""
    import optuna

    n_columns = genes.shape[1]
    with quiet_optuna(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the evaluator is experimental
        study = optuna.create_study(direction="maximize")
        trials = [
            trial_of(Record(tuple(row), value, 0, i, "", 0.0), (n_candidates,) * n_columns)
            for i, (row, value) in enumerate(zip(genes.tolist(), fitness.tolist(), strict=True))
        ]
        study.add_trials(trials)
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, max_depth=DEPTH, seed=0)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    shares = np.zeros(n_columns)
    for name, value in found.items():
        shares[int(name.removeprefix("block_"))] = value
    return shares


def draw_importance(figure: Figure, data: FigureData, importance: Importance) -> None:
    """A bar per block, and what chance would give it."""
    figure.set_size_inches(WIDTH, 2.5)
    axes = figure.subplots()
    x = np.arange(data.n_blocks)
    above = importance.share > importance.chance
    for mask, colour, label in ((above, MAIN, "above chance"), (~above, FAINT, "not above chance")):
        if mask.any():
            axes.bar(x[mask], 100 * importance.share[mask], width=0.72, color=colour, label=label)
    label = "chance: highest of the blocks with shuffled choices"
    axes.axhline(100 * importance.chance, color=BEST, lw=1.0, ls=(0, (4, 2)), label=label)
    highest = 100 * max(importance.share.max(), importance.chance)
    axes.set_ylim(0, 1.12 * highest)
    for block in x[above & (importance.share >= 0.01)]:
        value = 100 * importance.share[block]
        axes.text(block, value + 0.02 * highest, f"{value:.0f}", ha="center", fontsize=6)
    axes.set_ylabel("share of the explained\nvariance of the fitness (%)")
    block_axis(axes, data.stages)
    axes.set_xlabel(BLOCK_LABEL)
    axes.tick_params(axis="x", length=0, which="both")
    axes.set_title(f"Importance of every block's choice ({METHOD})", pad=18)
    axes.legend(loc="upper right", labelcolor=MUTED)


def describe_importance(data: FigureData, importance: Importance) -> str:
    """The figure in words, for those who cannot see it."""
    order = np.argsort(-importance.share)
    told = ", ".join(f"{data.block_names[i]} {100 * importance.share[i]:.1f} %" for i in order)
    chance = f"{100 * importance.chance:.1f} %"
    return f"Share of the fitness's explained variance, by block: {told}. Shuffled choices reach up to {chance}."
