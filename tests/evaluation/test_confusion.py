"""Pooled counts, and the metrics of counts, are scikit-learn's on the same pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score, recall_score

from nnunetv2_slicemamba.evaluation.confusion import Counts, contingency_table, counts_of
from nnunetv2_slicemamba.evaluation.metrics import COUNT_METRICS

LABELS = (0, 1, 2, 7)
FUNCTIONS = {metric.key: metric.function for metric in COUNT_METRICS}
dice, iou, accuracy, sensitivity, specificity = (
    FUNCTIONS[key] for key in ("dice", "iou", "accuracy", "sensitivity", "specificity")
)
label_maps = arrays.arrays(np.int32, (6, 7), elements=st.sampled_from(LABELS))


@settings(max_examples=60, deadline=None)
@given(truth=label_maps, prediction=label_maps, members=st.sampled_from([(1,), (7,), (1, 2), (2, 7)]))
def test_every_rate_is_scikit_learns(truth: np.ndarray, prediction: np.ndarray, members: tuple[int, ...]) -> None:
    counts = counts_of(contingency_table(truth, prediction, LABELS), LABELS, members)
    true, predicted = np.isin(truth, members).ravel(), np.isin(prediction, members).ravel()
    tn, fp, fn, tp = confusion_matrix(true, predicted, labels=[False, True]).ravel()
    assert (counts.tn, counts.fp, counts.fn, counts.tp) == (tn, fp, fn, tp)
    for ours, theirs in (
        (dice(counts), f1_score(true, predicted, zero_division=np.nan)),
        (iou(counts), jaccard_score(true, predicted) if (true | predicted).any() else math.nan),
        (accuracy(counts), accuracy_score(true, predicted)),
        (sensitivity(counts), recall_score(true, predicted, zero_division=np.nan)),
        (specificity(counts), recall_score(~true, ~predicted, zero_division=np.nan)),
    ):
        assert ours == pytest.approx(theirs, abs=1e-12, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(truth=label_maps, prediction=label_maps)
def test_swapping_truth_and_prediction_swaps_the_errors(truth: np.ndarray, prediction: np.ndarray) -> None:
    one = counts_of(contingency_table(truth, prediction, LABELS), LABELS, (1,))
    other = counts_of(contingency_table(prediction, truth, LABELS), LABELS, (1,))
    assert (one.tp, one.fp, one.fn, one.tn) == (other.tp, other.fn, other.fp, other.tn)
    assert math.isnan(iou(one)) or 0 <= iou(one) <= dice(one) <= 1


@settings(max_examples=40, deadline=None)
@given(truth=label_maps, prediction=label_maps)
def test_ignored_pixels_of_the_truth_count_nowhere(truth: np.ndarray, prediction: np.ndarray) -> None:
    counts = counts_of(contingency_table(truth, prediction, LABELS, ignore_label=7), LABELS, (1,))
    kept = truth != 7
    assert counts.tp + counts.fp + counts.fn + counts.tn == kept.sum()
    assert counts.tp == ((truth == 1) & (prediction == 1)).sum()
    assert counts.fp == ((truth != 1) & (prediction == 1) & kept).sum()


def test_the_published_protocol_differs_from_the_mean_over_images() -> None:
    big, small = Counts(tp=90, fp=10, fn=0, tn=900), Counts(tp=0, fp=0, fn=2, tn=998)
    pooled = big + small
    assert iou(pooled) == 90 / 102
    assert dice(pooled) == 180 / 192
    assert (accuracy(pooled), specificity(pooled)) == (1988 / 2000, 1898 / 1908)
    assert sensitivity(pooled) == 90 / 92
    assert (iou(big) + iou(small)) / 2 == 0.45


def test_rates_without_pixels_are_undefined() -> None:
    nothing = Counts(tp=0, fp=0, fn=0, tn=5)
    assert all(math.isnan(value) for value in (dice(nothing), iou(nothing), sensitivity(nothing)))
    assert specificity(nothing) == accuracy(nothing) == 1
    assert math.isnan(specificity(Counts(5, 0, 0, 0)))


def test_a_label_that_is_not_listed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"labels \[9\] are not among"):
        contingency_table(np.array([0, 9]), np.array([0, 0]), LABELS)


def test_nan_is_no_label() -> None:
    with pytest.raises(ValueError, match=r"labels \[nan\] are not among \[0, 1\]"):
        contingency_table(np.array([0.0, 1.0]), np.array([0.0, np.nan]), [0, 1])
