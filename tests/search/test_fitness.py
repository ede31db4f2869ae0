"""Fitness is nnU-Net's mean foreground Dice."""

import math
import warnings

import numpy as np
import pytest
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_slicemamba.search import FITNESS_DEFINITION, Evaluation, dice_per_case, mean_foreground_dice
from nnunetv2_slicemamba.search.fitness import evaluation_of_counts, title_of


def count(truth, prediction, labels):
    """(classes, 3) TP, FP, FN of one case."""
    masks = [(truth == label, prediction == label) for label in labels]
    return [[(t & p).sum(), (~t & p).sum(), (t & ~p).sum()] for t, p in masks]


@pytest.fixture
def cases():
    """Truth and prediction of four cases with three classes, some of them absent from some cases."""
    rng = np.random.default_rng(0)
    truths = rng.integers(0, 4, (4, 1, 12, 14)).astype(np.uint8)
    predictions = np.where(rng.random(truths.shape) < 0.7, truths, rng.integers(0, 4, truths.shape)).astype(np.uint8)
    truths[0][truths[0] == 2] = 0
    predictions[0][predictions[0] == 2] = 0  # absent from both: undefined in this case
    truths[1][truths[1] == 3] = 1  # absent from the truth only: zero in this case
    return truths, predictions


def test_fitness_equals_foreground_mean_of_nnunets_summary(cases, tmp_path):
    truths, predictions = cases
    properties = {"sitk_stuff": {"spacing": (1, 1, 1), "origin": (0, 0, 0), "direction": tuple(np.eye(3).ravel())}}
    for folder, images in (("truth", truths), ("prediction", predictions)):
        (tmp_path / folder).mkdir()
        for i, image in enumerate(images):
            SimpleITKIO().write_seg(image, str(tmp_path / folder / f"case_{i}.nii.gz"), properties)
    summary = compute_metrics_on_folder(
        str(tmp_path / "truth"),
        str(tmp_path / "prediction"),
        None,
        SimpleITKIO(),
        ".nii.gz",
        [1, 2, 3],
        num_processes=1,
    )

    counts = [count(t, p, [1, 2, 3]) for t, p in zip(truths, predictions, strict=True)]
    result = mean_foreground_dice(counts)
    assert result.fitness == pytest.approx(summary["foreground_mean"]["Dice"], abs=1e-12)
    assert result.per_class == pytest.approx([summary["mean"][label]["Dice"] for label in (1, 2, 3)], abs=1e-12)
    theirs = [[case["metrics"][label]["Dice"] for label in (1, 2, 3)] for case in summary["metric_per_case"]]
    assert dice_per_case(counts) == pytest.approx(np.array(theirs), abs=1e-12, nan_ok=True)
    assert np.isnan(dice_per_case(counts)[0, 1])
    assert dice_per_case(counts)[1, 2] == 0


def test_classes_weigh_the_same_however_many_cases_have_them():
    counts = [[[5, 5, 5], [1, 0, 0]], [[5, 5, 5], [0, 0, 0]], [[5, 5, 5], [0, 0, 0]]]
    result = mean_foreground_dice(counts)
    assert result.per_class.tolist() == [0.5, 1.0]
    assert result.fitness == 0.75


def test_a_class_that_is_absent_everywhere_is_left_out():
    result = mean_foreground_dice([[[3, 0, 0], [0, 0, 0]], [[1, 1, 1], [0, 0, 0]]])
    assert result.fitness == pytest.approx(0.75)
    assert math.isnan(result.per_class[1])
    assert result.details()["dice_per_class"][0] == pytest.approx(0.75)


def test_a_class_that_is_absent_from_some_cases_is_averaged_over_the_others():
    absent, predicted_only, half = [0, 0, 0], [0, 4, 0], [1, 1, 1]
    assert mean_foreground_dice([[half], [absent], [absent]]).fitness == 0.5
    # predicted where it is not is wrong, and counts
    assert mean_foreground_dice([[half], [predicted_only]]).fitness == 0.25


@pytest.mark.parametrize("counts", [np.zeros((3, 2, 3)), np.zeros((0, 2, 3)), np.zeros((2, 0, 3))])
def test_fitness_is_undefined_without_any_foreground_and_nothing_is_warned(counts):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(mean_foreground_dice(counts).fitness)


def test_an_architecture_is_judged_by_the_defined_fitness_and_keeps_every_class():
    evaluation = evaluation_of_counts([[[1, 1, 1], [1, 0, 0]]])
    assert evaluation == Evaluation(0.75, {"dice_per_class": [0.5, 1.0], "fitness_per_case": [0.75]})
    assert title_of(FITNESS_DEFINITION) == "mean foreground Dice"


def test_large_volumes_do_not_overflow():
    counts = np.full((1, 1, 3), 2**31 - 1, dtype=np.int32)
    assert mean_foreground_dice(counts).fitness == 0.5


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (np.zeros((2, 3)), r"shape \(2, 3\), they need \(cases, classes, 3\)"),
        (np.zeros((2, 2, 4)), "TP, FP, FN"),
        (np.full((1, 1, 3), -1), "not negative"),
        (np.full((1, 1, 3), math.nan), "finite"),
    ],
)
def test_what_is_no_count_is_refused(counts, words):
    with pytest.raises(ValueError, match=words):
        mean_foreground_dice(counts)
