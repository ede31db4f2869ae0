"""The noise of a search: named where there is nothing else, and told apart from differences that are there."""

import numpy as np
import pytest

from nnunetv2_slicemamba.search import Record
from nnunetv2_slicemamba.search.noise import noise_of

CASES, ARCHITECTURES, SD = 12, 30, 0.02


def ledger(effect: float, seed: int, n_cases: int = CASES, n_architectures: int = ARCHITECTURES) -> list[Record]:
    """Cases of different difficulty; architectures that differ by `effect` (SD) and disagree by SD from case to case.

    Architectures share two thirds of their disagreement with a neighbour, as those that share blocks do.
    """
    rng = np.random.default_rng(seed)
    own = rng.normal(0, 1, (n_architectures, n_cases))
    disagreement = SD * (own + 2 * np.roll(own, 1, axis=0)) / np.sqrt(5)
    values = 0.8 + rng.normal(0, 0.1, n_cases) + effect * rng.normal(0, 1, (n_architectures, 1)) + disagreement
    return [
        Record((i,), float(row.mean()), 0, i, "random", 1.0, {"fitness_per_case": row.tolist()})
        for i, row in enumerate(values)
    ]


def test_a_spread_of_nothing_but_noise_is_called_noise():
    found = [noise_of(ledger(0.0, seed)) for seed in range(40)]
    assert np.mean([one.stands_out for one in found]) <= 0.125, "one in twenty, give or take"
    variances = [[one.noise**2, one.spread**2] for one in found]
    assert np.divide(*np.mean(variances, axis=0)) == pytest.approx(1, abs=0.1)
    quiet = next(one for one in found if not one.stands_out)
    assert quiet.verdict.endswith("is noise: no difference between the architectures stands out from it.")


def test_clear_differences_are_called_differences_and_the_noise_beside_them_is_right():
    found = [noise_of(ledger(0.05, seed)) for seed in range(20)]
    assert all(one.stands_out for one in found)
    # of 0.05^2 + 0.02^2 / 12, this is noise
    assert np.mean([one.share for one in found]) == pytest.approx(0.0132, abs=0.005)
    assert found[0].verdict.endswith("the architectures differ by more than that.")
    assert found[0].least_difference == pytest.approx(2 * np.sqrt(2) * SD / np.sqrt(CASES), rel=0.2)


def test_differences_smaller_than_their_noise_are_not_oversold():
    found = [noise_of(ledger(0.0025, seed, n_cases=40, n_architectures=60)) for seed in range(20)]
    verdicts = {one.verdict for one in found if one.stands_out and one.share > 0.5}
    assert verdicts
    assert all("the architectures differ, but most of what sets two of them apart is noise" in one for one in verdicts)


def test_only_random_architectures_count_and_undefined_cases_are_left_out():
    records = ledger(0.0, 0)
    bred = Record((99,), 0.99, 1, 0, "mutant", 1.0, {"fitness_per_case": [0.99] * CASES})
    first = records[0].details["fitness_per_case"]
    gap = [Record((0,), 0.8, 0, 0, "random", 1.0, {"fitness_per_case": [None, *first[1:]]}), *records[1:]]
    assert noise_of([*records, bred]) == noise_of(records)
    assert noise_of(gap).n_cases == CASES - 1


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([Record((0,), 0.8, 0, 0, "random", 1.0)], "do not hold the fitness of every case"),
        (ledger(0.0, 0, n_cases=5), "there are 30 and 5"),
        (ledger(0.0, 0, n_architectures=2), "there are 2 and 12"),
        ([Record((i,), 0.8, 0, i, "random", 1.0, {"fitness_per_case": [0.8] * 9}) for i in range(4)], "the same"),
    ],
)
def test_what_cannot_be_told_is_said(records, words):
    assert words in noise_of(records)
