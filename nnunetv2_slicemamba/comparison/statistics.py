"""Difference between two arms, with the interval that the choice of cases leaves."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunetv2_slicemamba.evaluation.statistics import bootstrap_interval

DiceTable = NDArray[np.float64]  # (trainings, classes, cases), NaN where undefined


@dataclass(frozen=True)
class Difference:
    """Mean Dice of one arm less another's; the interval's bounds are NaN where cases cannot tell."""

    mean: float
    low: float
    high: float


def foreground_dice(table: DiceTable) -> float:
    """Mean Dice of one arm. table: (trainings, classes, cases), NaN where undefined.

    Per training nnU-Net's foreground mean: over the cases per class, then over the classes that are defined.
    """
    return float(dice_of_cases(table, np.arange(table.shape[-1])))


def paired_difference(one: DiceTable, other: DiceTable, confidence: float = 0.95) -> Difference:
    """foreground_dice(one) - foreground_dice(other) with a paired bootstrap interval over the cases.

    one, other: (trainings, classes, cases), the same cases in the same order; the numbers of trainings may differ.
    Cases are drawn with replacement, the same for both, with all of their classes and trainings, and the BCa method
    (Efron 1987) is used. It says how much the difference depends on these cases, not on the luck of a training.
    Raises ValueError for different classes or cases.
    """
    if one.shape[1:] != other.shape[1:]:
        raise ValueError(f"tables of {one.shape[1:]} and {other.shape[1:]} classes and cases are not paired")

    def statistic(cases: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        return dice_of_cases(one, cases) - dice_of_cases(other, cases)

    everything = np.arange(one.shape[-1])
    mean = float(statistic(everything))
    if not _differs(statistic, len(everything)):
        return Difference(mean, math.nan, math.nan)
    return Difference(mean, *bootstrap_interval((everything,), statistic, max(one.size, other.size), confidence))


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests at 5 % (TOST): whether two arms differ by less than `margin`.

    low, high: bounds of the 90 % interval of the difference, which lies within the margin if both tests reject.
    """

    margin: float
    low: float
    high: float

    @property
    def is_shown(self) -> bool:
        """True if a difference of the margin or more is refuted on either side."""
        return -self.margin < self.low and self.high < self.margin


def equivalence(one: DiceTable, other: DiceTable, margin: float) -> Equivalence:
    """The equivalence test of two arms over the cases; arguments and errors as paired_difference's."""
    found = paired_difference(one, other, confidence=0.9)
    return Equivalence(margin, found.low, found.high)


def _differs(statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]], n: int) -> bool:
    """True if the difference varies over the cases; resampling says nothing otherwise."""
    single = statistic(np.arange(n)[:, None])
    defined = single[~np.isnan(single)]
    return bool(defined.size > 1 and np.ptp(defined) > 0)


def dice_of_cases(table: DiceTable, cases: NDArray[np.int64]) -> NDArray[np.float64]:
    """foreground_dice over chosen cases, for bootstraps. cases: (..., drawn) indices. Returns (...)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        per_class = np.nanmean(table[:, :, cases], axis=-1)  # (trainings, classes, ...)
        return np.mean(np.nanmean(per_class, axis=1), axis=0)


def spread(values: Sequence[float]) -> float:
    """Standard deviation (n - 1); NaN for fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def pooled_spread(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Standard deviation within groups, pooled, and its degrees of freedom; (NaN, 0) if none has two values."""
    freedom = sum(len(group) - 1 for group in groups)
    if freedom < 1:
        return math.nan, 0
    squares = math.fsum((value - float(np.mean(group))) ** 2 for group in groups for value in group)
    return math.sqrt(squares / freedom), freedom
