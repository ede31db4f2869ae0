"""Mean over cases, with its confidence interval.

Intervals are bootstrap intervals of the mean: cases are drawn with replacement and the BCa method (bias-corrected and
accelerated, Efron 1987) is used, which respects the skew that Dice near 1 and HD95 have.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from nnunetv2_slicemamba.evaluation.results import EvaluationSettings, Summary

VALUES_AT_ONCE = 4_000_000  # resampled values held in memory: 32 MB


def summarise(values: Sequence[Sequence[float]], one_empty: int, settings: EvaluationSettings) -> Summary:
    """Summary of one metric. values: (classes, cases), NaN where undefined; a single class is the usual case.

    The mean is the mean of the classes' means over their defined cases; median, SD, minimum and maximum are those of
    the cases' means over their defined classes. A class that is undefined in all cases is left out (nnU-Net's mean over
    the classes is NaN then). one_empty: see Summary. Raises ValueError for infinite values, which no mean can hold.
    """
    table = np.asarray(values, dtype=np.float64)
    if np.isinf(table).any():
        raise ValueError(f"{np.isinf(table).sum()} of {table.size} values are infinite; NaN means undefined")
    cases = table.shape[1]
    table = table[np.isfinite(table).any(axis=1)][:, np.isfinite(table).any(axis=0)]
    defined = table.shape[1]
    counts = (cases, defined, cases - defined, one_empty)
    if not defined:
        return Summary(*counts, *(math.nan,) * 7)
    per_case = np.nanmean(table, axis=0)
    low, high = _interval(table, settings)
    return Summary(
        *counts,
        mean=float(_mean_of_means(*table, axis=-1)),
        low=low,
        high=high,
        median=float(np.median(per_case)),
        sd=float(np.std(per_case, ddof=1)) if defined > 1 else math.nan,
        minimum=float(per_case.min()),
        maximum=float(per_case.max()),
    )


def _interval(table: NDArray[np.float64], settings: EvaluationSettings) -> tuple[float, float]:
    """Bounds of the confidence interval; NaN where cases do not differ, as resampling them says nothing then."""
    cases = table.shape[1]
    if cases < 2 or all(np.array_equal(row, np.full(cases, row[0]), equal_nan=True) for row in table):
        return math.nan, math.nan
    how = (settings.confidence, settings.resamples, settings.seed)
    return bootstrap_interval(tuple(table), _mean_of_means, table.size, *how)


def bootstrap_interval(
    samples: tuple[NDArray[Any], ...],
    statistic: Callable[..., NDArray[np.float64]],
    values: int,
    confidence: float,
    resamples: int = 9999,
    seed: int = 0,
) -> tuple[float, float]:
    """Bounds of the BCa interval of a vectorised statistic. Several samples are drawn together.

    values: number of those that a resample has, whatever the samples are.
    """
    with warnings.catch_warnings():
        # a resample may hold no case in which a class is defined: that class is left out of its mean
        warnings.simplefilter("ignore", RuntimeWarning)
        found = stats.bootstrap(
            samples,
            statistic,
            paired=len(samples) > 1,
            vectorized=True,
            confidence_level=confidence,
            n_resamples=resamples,
            batch=max(1, VALUES_AT_ONCE // values),
            method="BCa",
            random_state=np.random.default_rng(seed),
        ).confidence_interval
    return float(found.low), float(found.high)


def _mean_of_means(*rows: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    return np.nanmean([np.nanmean(row, axis=axis) for row in rows], axis=0)
