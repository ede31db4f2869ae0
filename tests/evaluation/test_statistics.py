"""Means over cases leave out what is undefined, and their intervals are bootstrap intervals of the cases."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy import stats

from nnunetv2_slicemamba.evaluation import EvaluationSettings
from nnunetv2_slicemamba.evaluation.statistics import summarise

SETTINGS = EvaluationSettings(resamples=2000)
NAN = math.nan


def test_the_interval_is_scipys_bca_interval_of_the_defined_values() -> None:
    values = np.random.default_rng(3).beta(8, 2, 25)
    found = summarise([[*values, NAN, NAN]], 1, SETTINGS)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=2000, method="BCa", random_state=np.random.default_rng(0)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.cases, found.defined, found.undefined, found.one_empty) == (27, 25, 2, 1)
    assert found.mean == pytest.approx(values.mean())
    assert (found.median, found.sd) == pytest.approx((np.median(values), values.std(ddof=1)))
    assert (found.minimum, found.maximum) == (values.min(), values.max())


def test_a_higher_confidence_gives_a_wider_interval_and_the_seed_decides() -> None:
    values = [list(np.random.default_rng(1).normal(5, 2, 30))]
    narrow, wide = (summarise(values, 0, EvaluationSettings(confidence=level, resamples=2000)) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high
    assert summarise(values, 0, SETTINGS) == summarise(values, 0, SETTINGS)
    assert summarise(values, 0, SETTINGS).low != summarise(values, 0, EvaluationSettings(resamples=2000, seed=1)).low


def test_intervals_cover_the_true_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    settings = EvaluationSettings(confidence=0.9, resamples=400)
    found = [summarise([list(rng.gamma(2, 1, 40))], 0, settings) for _ in range(200)]
    assert 0.82 <= np.mean([one.low <= 2 <= one.high for one in found]) <= 0.96


def test_the_mean_over_classes_is_the_mean_of_their_means_and_resamples_whole_cases() -> None:
    first, second = [0.9, 0.5, 0.7, NAN, 0.8], [0.2, NAN, 0.6, NAN, 0.1]
    found = summarise([first, second], 0, SETTINGS)
    assert found.mean == pytest.approx((np.nanmean(first) + np.nanmean(second)) / 2)
    assert (found.defined, found.undefined) == (4, 1)
    assert found.median == pytest.approx(np.median([0.55, 0.5, 0.65, 0.45]))
    assert found.low < found.mean < found.high
    # two classes whose errors cancel in every case leave nothing to be unsure of
    opposite = summarise([[0.1, 0.5, 0.9, 0.3], [0.9, 0.5, 0.1, 0.7]], 0, SETTINGS)
    assert math.isnan(opposite.low) or opposite.high - opposite.low < 1e-9


def test_a_class_that_no_case_has_is_left_out_of_the_mean() -> None:
    values = [0.9, 0.5, 0.7]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert summarise([values, [NAN] * 3], 0, SETTINGS) == summarise([values], 0, SETTINGS)


@pytest.mark.parametrize("values", [[0.5], [0.7, 0.7, 0.7], [NAN, 0.2]])
def test_cases_that_do_not_differ_give_no_interval(values: list[float]) -> None:
    found = summarise([values], 0, SETTINGS)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.mean == pytest.approx(np.nanmean(values))


def test_nothing_defined_is_nan_throughout() -> None:
    found = summarise([[NAN, NAN]], 0, SETTINGS)
    assert (found.cases, found.defined, found.undefined) == (2, 0, 2)
    assert all(math.isnan(value) for value in (found.mean, found.low, found.high, found.median, found.sd))


def test_infinite_values_are_refused_rather_than_left_out() -> None:
    with pytest.raises(ValueError, match="1 of 3 values are infinite; NaN means undefined"):
        summarise([[0.5, math.inf, math.nan]], 0, EvaluationSettings())
