"""Noise in the fitness of a search: the part of its spread that the choice of the cases explains by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_slicemamba.search.records import RANDOM, Record

PER_CASE = "fitness_per_case"  # in a record's details: the fitness of every case by itself
FEWEST_ARCHITECTURES = 3
FEWEST_CASES = 6  # with fewer, no sign-flip test can reach LEVEL
ALL_FLIPS, SOME_FLIPS = 11, 2000  # all flips up to so many cases; so many drawn ones above
LEVEL = 0.05


@dataclass(frozen=True)
class Noise:
    """Spread and noise of the fitness of a search's random architectures.

    spread: standard deviation of their fitness. noise: the standard deviation that equally good ones would have on as
    many cases. p: of a sign-flip test that all are equally good. n_architectures, n_cases: what this rests on.
    """

    spread: float
    noise: float
    p: float
    n_architectures: int
    n_cases: int

    @property
    def share(self) -> float:
        """Share of the variance of the fitness that is noise, 0 to 1."""
        return min(1.0, (self.noise / self.spread) ** 2)

    @property
    def stands_out(self) -> bool:
        """Whether the architectures differ by more than noise."""
        return self.p <= LEVEL

    @property
    def least_difference(self) -> float:
        """Twice the standard error of the difference of two architectures, paired by case."""
        return 2 * math.sqrt(2) * self.noise

    @property
    def verdict(self) -> str:
        """One sentence."""
        if not self.stands_out:
            found = "no difference between the architectures stands out from it"
        elif self.share > 0.5:
            found = "the architectures differ, but most of what sets two of them apart is noise"
        else:
            found = "the architectures differ by more than that"
        return f"About {100 * self.share:.0f} % of the variance of the fitness is noise: {found}."

    @property
    def evidence(self) -> str:
        """The figures behind the verdict, in sentences."""
        return (
            f"The fitness of the {self.n_architectures} random architectures has a standard deviation of "
            f"{self.spread:.2g}; equally good ones would have {self.noise:.2g}. Two architectures that are less than "
            f"{self.least_difference:.2g} apart cannot be told apart on these {self.n_cases} cases."
        )

    @property
    def method(self) -> str:
        """How the noise was estimated, in one sentence, and what it leaves out."""
        return (
            "Noise is the extent to which the cases disagree about the same architectures: the residual of a two-way "
            "analysis of variance by architecture and case, of the random architectures only, because the search "
            "breeds the others from the best on these cases; whether anything stands out is tested by flipping the "
            f"signs of whole cases (p = {self.p:.2g}). What another training of the supernet would change is not in it."
        )


def noise_of(records: Sequence[Record]) -> Noise | str:
    """Noise in the fitness of a search, or a text that says why it cannot be told.

    records: of all evaluations. For iid cases the residual's mean square over the number of cases is an unbiased
    estimate of the noise's variance, however much architectures resemble each other. The test (after Fisher) flips the
    sign of all architectures' deviations in a case together, so it needs no independent architectures either.
    """
    told = [values for r in records if r.origin == RANDOM and (values := _per_case(r.details)) is not None]
    if not told:
        return "the evaluations of this search do not hold the fitness of every case"
    if len({len(values) for values in told}) > 1:
        return "its evaluations are of different cases"
    values = np.stack(told)  # (architectures, cases)
    values = values[:, ~np.isnan(values).any(axis=0)]
    n_architectures, n_cases = values.shape
    if n_architectures < FEWEST_ARCHITECTURES or n_cases < FEWEST_CASES:
        return (
            f"that needs {FEWEST_ARCHITECTURES} random architectures and {FEWEST_CASES} cases, "
            f"there are {n_architectures} and {n_cases}"
        )
    deviations = values - values.mean(axis=0)
    means = deviations.mean(axis=1)
    spread = math.sqrt(np.square(means).sum() / (n_architectures - 1))
    if spread <= 1e-9:
        return "the random architectures all have the same fitness"
    residuals = deviations - means[:, None]
    square = np.square(residuals).sum() / ((n_architectures - 1) * (n_cases - 1))
    return Noise(spread, math.sqrt(square / n_cases), _sign_flip_test(deviations), n_architectures, n_cases)


def _per_case(details: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """The fitness of every case, NaN where undefined; None where the details do not hold it."""
    values = details.get(PER_CASE)
    return None if not isinstance(values, Sequence) else np.array(values, dtype=np.float64)


def _sign_flip_test(deviations: NDArray[np.float64]) -> float:
    """Share of the sign flips of the cases that spread the architectures' means at least as much as no flip.

    deviations: (architectures, cases) from the mean of every case.
    """
    n_cases = deviations.shape[1]
    if n_cases <= ALL_FLIPS:
        # a flip of all cases changes nothing: the first one keeps its sign
        bits = np.arange(2 ** (n_cases - 1))[:, None] >> np.arange(n_cases - 1) & 1
        signs = np.hstack([np.ones((len(bits), 1)), 1 - 2 * bits])
    else:
        signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(SOME_FLIPS, n_cases))
        signs[0] = 1.0
    spreads = np.square(signs @ deviations.T).sum(axis=1)
    return float((spreads >= spreads[0] * (1 - 1e-9)).mean())
