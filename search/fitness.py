"""The fitness of an architecture: mean foreground Dice from counted voxels.

`evaluation_of_counts` and FITNESS_DEFINITION are all that says what the fitness is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnunetv2_slicemamba.search.noise import PER_CASE
from nnunetv2_slicemamba.search.records import Evaluation

# its title, a colon, and the rest of the definition
FITNESS_DEFINITION = (
    "mean foreground Dice: 2TP/(2TP+FP+FN) per case and class over whole cases, undefined where TP+FP+FN=0; "
    "mean over the cases where it is defined per class, then mean over the classes where that is defined"
)


def evaluation_of_counts(counts: ArrayLike) -> Evaluation:
    """The fitness of an architecture, with what is worth keeping beside it, from the voxels of its predictions.

    counts: (cases, classes, 3), see dice_per_case.
    """
    scores = mean_foreground_dice(counts)
    return Evaluation(scores.fitness, scores.details())


def title_of(definition: str) -> str:
    """The name of a fitness for figures, such as "mean foreground Dice": its definition up to the colon."""
    return definition.partition(":")[0]


@dataclass(frozen=True)
class DiceScores:
    """Dice of an architecture's predictions.

    fitness: mean foreground Dice, 0 to 1 or NaN. per_class: (classes,) float64, 0 to 1 or NaN. per_case: (cases,) mean
    over the classes that a case has, likewise.
    """

    fitness: float
    per_class: NDArray[np.float64]
    per_case: NDArray[np.float64]

    def details(self) -> dict[str, Any]:
        """The scores as Evaluation.details keeps them; six digits tell cases apart, and a search has many."""
        return {"dice_per_class": self.per_class.tolist(), PER_CASE: self.per_case.round(6).tolist()}


def dice_per_case(counts: ArrayLike) -> NDArray[np.float64]:
    """Dice of every case and class: 2 TP / (2 TP + FP + FN).

    counts: (cases, classes, 3) voxels counted as true positive, false positive, false negative; whole cases, foreground
    classes (or regions) only, ignored voxels left out.
    Returns (cases, classes) float64; NaN where truth and prediction both lack the class, as in nnU-Net's summary.json.
    Raises ValueError for another shape, or for negative or non-finite counts.
    """
    voxels = np.asarray(counts, dtype=np.float64)
    if voxels.ndim != 3 or voxels.shape[-1] != 3:
        raise ValueError(f"counts have shape {voxels.shape}, they need (cases, classes, 3): TP, FP, FN")
    if not np.isfinite(voxels).all() or (voxels < 0).any():
        raise ValueError("counts must be finite and not negative; did a 16-bit type overflow while counting voxels?")
    tp, fp, fn = np.moveaxis(voxels, -1, 0)
    denominator = 2 * tp + fp + fn
    return np.divide(2 * tp, denominator, out=np.full_like(denominator, np.nan), where=denominator > 0)


def mean_foreground_dice(counts: ArrayLike) -> DiceScores:
    """The fitness of an architecture from its predictions of a fold's validation cases (FITNESS_DEFINITION).

    counts: (cases, classes, 3), see dice_per_case.

    Equals `foreground_mean` of nnU-Net's summary.json, with one difference: a class that is absent from truth and
    prediction in every case makes nnU-Net's mean NaN, here it is left out. NaN only if that holds for every class, or
    without cases.
    """
    dice = dice_per_case(counts)
    per_class = _mean_of_defined(dice)
    return DiceScores(float(_mean_of_defined(per_class[:, None])[0]), per_class, _mean_of_defined(dice.T))


def _mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the first axis without NaN; NaN where nothing is left, without np.nanmean's warning."""
    defined = ~np.isnan(values)
    number = defined.sum(axis=0)
    total = np.where(defined, values, 0.0).sum(axis=0)
    return np.divide(total, number, out=np.full(values.shape[1:], np.nan), where=number > 0)
