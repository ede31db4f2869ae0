"""Rank correlation of a few pairs, with exact p values and intervals that hold for so few.

Kendall's tau-b and Spearman's rho, with p values of exact permutation tests, and intervals that hold for few pairs. A
bootstrap over a handful of arms does not: with perfect order every resample is in perfect order, and the interval has
no width. The intervals here invert a test instead (as Clopper and Pearson's do for proportions): a bound is the
correlation from which so extreme an order would be observed with a probability of 2.5 % only, pairs being drawn from a
bivariate normal distribution. Both coefficients depend on ranks alone, so any increasing transformation of fitness and
Dice is allowed for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Values = NDArray[np.float64]
FEWEST = 3
EXACT_RHO = 8  # arms up to which rho's p value counts all orders: 8! = 40,320


@dataclass(frozen=True)
class Correlation:
    """A coefficient, its interval, and the two-sided p value of no association."""

    value: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class RankAgreement:
    """Agreement of two rankings of the same n things.

    kendall: tau-b. spearman: rho. needed_tau: smallest |tau| that n pairs without ties can tell from chance at 5 %,
    None if none is.
    """

    n: int
    kendall: Correlation
    spearman: Correlation
    needed_tau: float | None


def rank_agreement(x: Sequence[float], y: Sequence[float], draws: int = 20000) -> RankAgreement:
    """Correlation of the ranks of x and y, paired, with intervals of 95 %.

    draws: of the simulated samples. Raises ValueError for fewer than three pairs,
    undefined values, or values that are all equal.
    """
    one, other = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if one.shape != other.shape or one.ndim != 1:
        raise ValueError(f"{one.shape} and {other.shape} values are not paired")
    n = len(one)
    if n < FEWEST:
        raise ValueError(f"{n} pairs say nothing about a rank correlation; at least {FEWEST} are needed")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError("a rank correlation needs finite values")
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        raise ValueError("all values are equal, so there is no order that could agree")
    rng = np.random.default_rng(0)
    # the same draws for every latent correlation, so that the tail grows with it
    base, error = rng.standard_normal((2, draws, n))
    has_ties = len(np.unique(one)) < n or len(np.unique(other)) < n
    tau = stats.kendalltau(one, other, method="auto" if has_ties else "exact")
    rho = stats.spearmanr(one, other)
    tail = 0.025
    return RankAgreement(
        n,
        Correlation(
            float(tau.statistic),
            *_interval(float(tau.statistic), tail, base, error, kendall_rows, lambda r: 2 / math.pi * math.asin(r)),
            float(tau.pvalue),
        ),
        Correlation(
            float(rho.statistic),
            *_interval(
                float(rho.statistic), tail, base, error, spearman_rows, lambda r: 6 / math.pi * math.asin(r / 2)
            ),
            _exact_rho_p(one, other) if n <= EXACT_RHO else float(rho.pvalue),
        ),
        needed_tau(n),
    )


def _interval(
    observed: float,
    tail: float,
    base: Values,
    error: Values,
    statistic: Callable[[Values, Values], Values],
    coefficient: Callable[[float], float],
) -> tuple[float, float]:
    """Bounds by inverting both one-sided tests. coefficient: of a latent correlation, in a large sample."""
    x_rank = base.argsort(axis=1).argsort(axis=1).astype(np.float64)

    def tails(latent: float) -> tuple[float, float]:
        drawn = statistic(x_rank, latent * base + math.sqrt(1 - latent * latent) * error)
        return float(np.mean(drawn >= observed - 1e-9)), float(np.mean(drawn <= observed + 1e-9))

    # a coefficient of 1 is compatible with every larger one, -1 with every smaller one
    low = -1.0 if observed <= -1 + 1e-9 else coefficient(_bisect(lambda r: tails(r)[0] < tail))
    high = 1.0 if observed >= 1 - 1e-9 else coefficient(_bisect(lambda r: tails(r)[1] >= tail))
    return low, high


def _bisect(below: Callable[[float], bool]) -> float:
    """The latent correlation at which `below` turns from true to false."""
    low, high = -1.0, 1.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2


def kendall_rows(x: Values, y: Values) -> Values:
    """Kendall's tau of every row, without ties. x, y: (rows, n). Returns (rows,)."""
    n = x.shape[1]
    order = np.take_along_axis(y, x.argsort(axis=1), axis=1)
    concordant = np.zeros(len(x))
    for i in range(n - 1):
        concordant += (order[:, i + 1 :] > order[:, i : i + 1]).sum(axis=1)
    return 4 * concordant / (n * (n - 1)) - 1


def spearman_rows(x: Values, y: Values) -> Values:
    """Spearman's rho of every row, without ties. x, y: (rows, n). Returns (rows,)."""
    n = x.shape[1]
    distance = (x.argsort(axis=1).argsort(axis=1) - y.argsort(axis=1).argsort(axis=1)).astype(np.float64)
    return 1 - 6 * (distance**2).sum(axis=1) / (n * (n * n - 1))


def _exact_rho_p(x: Values, y: Values) -> float:
    """Two-sided p value over all orders of y; SciPy's is of large samples."""
    rank_x, rank_y = stats.rankdata(x), stats.rankdata(y)
    orders = np.array(list(itertools.permutations(rank_y)))
    centred = rank_x - rank_x.mean()
    products = np.abs(orders @ centred)
    return float(np.mean(products >= abs(rank_y @ centred) - 1e-9))


def needed_tau(n: int) -> float | None:
    """The smallest |tau| with a two-sided exact p value of at most 0.05 among n pairs without ties."""
    pairs = n * (n - 1) // 2
    counts = np.ones(1)
    for i in range(2, n + 1):  # orders of i elements by their number of discordant pairs
        counts = np.convolve(counts, np.ones(i)) / i
    tail = 2 * np.cumsum(counts)
    fitting = np.flatnonzero(tail <= 0.05)
    return None if fitting.size == 0 else float(1 - 2 * fitting[-1] / pairs)


def conclusion(found: RankAgreement) -> str:
    """Conclusion that n arms allow, in plain words."""
    tau, n = found.kendall, found.n
    if found.needed_tau is None:
        chance = 2 / math.factorial(n)
        return (
            f"{n} arms allow no conclusion: even perfect agreement or reversal of their order happens by chance with "
            f"probability {chance:.2f}. Compare at least 5 arms, better 10 or more."
        )
    if tau.low > 0:
        text = f"The supernet ranks the {n} arms better than chance (p = {tau.p_value:.2g})"
    elif tau.high < 0:
        text = f"The supernet ranks the {n} arms against their retrained order (p = {tau.p_value:.2g})"
    else:
        text = (
            f"{n} arms do not show whether the supernet ranks better than chance (p = {tau.p_value:.2g}; with {n} arms "
            f"only a tau of at least {found.needed_tau:.2f} would)"
        )
    return f"{text}; values from {tau.low:.2f} to {tau.high:.2f} are compatible with what was seen."
