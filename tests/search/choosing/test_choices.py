"""--set 2x4 | random:SEED | consensus | FILE gives a slicing for every block, or an error that says what would."""

import itertools
import math

import pytest

from nnunetv2_slicemamba.search import (
    SlicingChoice,
    SlicingFile,
    SlicingFileError,
    choose_slicing,
    consensus,
    write_slicing_file,
)
from nnunetv2_slicemamba.slicing.candidate_sets import named_candidates

TWO_D = tuple(itertools.product((2, 4), repeat=2))
THREE_D = tuple(itertools.product((2, 4), repeat=3))


def test_one_thickness_for_every_block():
    choice = choose_slicing("2x4", 22, 2, TWO_D)
    assert choice == SlicingChoice(((2, 4),) * 22, "fixed", (1,) * 22)
    assert choose_slicing("2x4x2", 5, 3, THREE_D) == SlicingChoice(((2, 4, 2),) * 5, "fixed", (2,) * 5)


def test_a_thickness_that_is_no_candidate_has_no_architecture():
    assert choose_slicing("1x255", 3, 2, TWO_D) == SlicingChoice(((1, 255),) * 3, "fixed", None)


@pytest.mark.parametrize(
    ("value", "n_dims", "candidate"),
    [
        ("04@h", 2, "4@h"),
        ("4@w", 2, "4@w"),
        ("2x04@d", 3, "2x4@d"),
        *((f"4@{axis}", 3, f"4x4@{axis}") for axis in "dhw"),
    ],
)
def test_bands_along_one_axis_are_kept_as_plans_have_them(value, n_dims, candidate):
    choice = choose_slicing(value, 3, n_dims, ((2,) * n_dims, candidate))
    assert choice == SlicingChoice((candidate,) * 3, "fixed", (1,) * 3)
    assert named_candidates(f"2,{value}", n_dims) == ((2,) * n_dims, candidate)


def test_random_draws_candidates_by_its_seed():
    choice = choose_slicing("random:3", 400, 2, TWO_D)
    assert choice.how_chosen == "random"
    assert choice.seed == 3
    assert choice.architecture is not None
    assert choice.slicing == tuple(TWO_D[index] for index in choice.architecture)
    assert all(abs(choice.architecture.count(index) - 100) < 50 for index in range(4))
    assert choose_slicing("random:3", 400, 2, TWO_D) == choice
    assert choose_slicing("random:4", 400, 2, TWO_D).slicing != choice.slicing


@pytest.fixture
def other_file(tmp_path):
    choice = SlicingChoice(((2, 2), (2, 4)), "search", (0, 1), 0.9, 5)
    content = SlicingFile(choice, TWO_D, "Dice", "Dataset998_Other", "2d", "P", 3, "a" * 64, "b" * 64)
    write_slicing_file(content, tmp_path / "other.json")
    return tmp_path / "other.json"


def test_a_file_gives_its_slicing_and_its_origin(other_file):
    choice = choose_slicing(str(other_file), 2, 2, TWO_D)
    assert choice.slicing == ((2, 2), (2, 4))
    assert choice.how_chosen == "file"
    assert choice.fitness is None, "the other fold's fitness says nothing about this one's"
    assert choice.details["source"]["dataset"] == "Dataset998_Other"
    assert choice.details["source"]["fold"] == 3
    assert choice.details["source"]["how_chosen"] == "search"


def test_a_file_of_another_network_is_refused(other_file):
    with pytest.raises(SlicingFileError, match="the slicing file .*other.json has 2 blocks, this network has 22"):
        choose_slicing(str(other_file), 22, 2, TWO_D)
    with pytest.raises(SlicingFileError, match="has thicknesses of 2 axes, this network has 3"):
        choose_slicing(str(other_file), 2, 3, THREE_D)


@pytest.mark.parametrize(
    ("value", "n_dims", "words"),
    [
        ("0x4", 2, r"thickness \(0, 4\) of '0x4' is out of range: every entry must be a whole number from 1 to 255"),
        ("2x256", 2, r"thickness \(2, 256\) of '2x256' is out of range"),
        ("2x4", 3, "'2x4' has 2 numbers, this network has 3 axes; .* for example 2x4x2"),
        ("2x4x2", 2, "'2x4x2' has 3 numbers, this network has 2 axes; .* for example 2x4$"),
        ("4", 2, "'4' has 1 numbers"),
        ("random", 2, "'random' has no seed, .* for example random:0"),
        ("random:", 2, "'random:' has no seed"),
        ("random:-1", 2, "'random:-1' has no seed, which must be a whole number of at least 0"),
        ("random:x", 2, "'random:x' has no seed"),
        (
            "2x-4",
            2,
            "'2x-4' is neither a thickness such as 2x4, nor bands along one axis such as 4@h, nor random:SEED, nor "
            "consensus, nor a file that exists",
        ),
        ("2.5x4", 2, "neither a thickness"),
        ("4@d", 2, "candidate '4@d' does not exist: .* such as 4@h"),
        ("0@h", 2, "candidate '0@h' must have a thickness from 1 to 253"),
        ("4x4x4@h", 3, "candidate '4x4x4@h' does not exist: .* such as 2x4@d"),
        ("", 2, "'' is neither"),
        ("missing.json", 3, "'missing.json' is neither a thickness such as 2x4x2, .* nor a file that exists"),
        ("consensus", 2, "a consensus needs the folds' searches; run `slicemamba search`"),
    ],
)
def test_what_is_no_slicing_is_refused_with_what_would_be_one(value, n_dims, words):
    with pytest.raises(ValueError, match=words):
        choose_slicing(value, 4, n_dims, TWO_D if n_dims == 2 else THREE_D)


def test_a_folder_is_no_slicing_file(tmp_path):
    with pytest.raises(ValueError, match="nor a file that exists"):
        choose_slicing(str(tmp_path), 4, 2, TWO_D)


HISTORIES = {
    0: [((0, 0), 0.9), ((1, 1), 0.7), ((2, 2), 0.6), ((3, 0), math.nan)],
    1: [((3, 0), 0.99), ((2, 2), 0.9), ((1, 1), 0.7), ((0, 1), 0.95)],
}


def test_the_consensus_is_the_best_mean_over_folds_of_what_all_evaluated():
    agreed = consensus(HISTORIES, (4, 4))
    assert agreed.architecture == (2, 2)  # 0.75; (1, 1) has 0.7, the others are not defined in both
    assert agreed.fitness == pytest.approx(0.75)
    assert agreed.n_shared == 2
    choice = choose_slicing("consensus", 2, 2, TWO_D, lambda: HISTORIES)
    assert choice.how_chosen == "consensus"
    assert choice.slicing == ((4, 2), (4, 2))
    assert choice.fitness == pytest.approx(0.75)
    assert choice.details["folds"] == [0, 1]
    assert choice.details["shared_architectures"] == 2
    assert "every fold evaluated" in choice.details["rule"]


def test_the_first_of_equals_is_the_consensus():
    histories = {0: [((1,), 0.25), ((2,), 0.75)], 1: [((2,), 0.25), ((1,), 0.75)]}
    assert consensus(histories, (4,)).architecture == (1,)


def test_without_a_shared_architecture_each_block_takes_the_candidate_best_on_average():
    histories = {
        0: [((0, 0), 0.1), ((0, 1), 0.3), ((1, 0), 0.5), ((1, 1), 0.7)],
        # An easier fold, in which candidate 0 of the first block was only ever better than in fold 0.
        1: [((0, 2), 0.85), ((2, 0), 0.95)],
    }
    agreed = consensus(histories, (3, 3))
    # Advantages at block 0: candidate 0 -0.2 and -0.05, 1 +0.2, 2 +0.05; at block 1: 0 -0.1 and +0.05, 1 +0.1, 2 -0.05.
    assert agreed.architecture == (1, 1)
    assert agreed.fitness is None
    assert agreed.n_shared == 0
    assert "no architecture was evaluated in every fold" in agreed.rule
    assert choose_slicing("consensus", 2, 2, TWO_D, lambda: histories).fitness is None


@pytest.mark.parametrize(
    ("histories", "words"),
    [
        ({}, "at least two folds, no fold has one; run `slicemamba search` for more folds"),
        ({3: [((0, 0), 0.5)]}, "at least two folds, only fold 3 has one"),
        ({0: [((0, 0), 0.5)], 4: []}, "the search of fold 4 has no evaluation with a defined fitness"),
        (
            {0: [((0, 0), 0.5)], 1: [((0, 0), math.nan)]},
            "the search of fold 1 has no evaluation with a defined fitness",
        ),
        ({0: [((0, 0), 0.5)], 1: [((0, 0, 0), 0.5)]}, r"fold 1 evaluated \(0, 0, 0\), .* 2 blocks of 4 candidates"),
        ({0: [((0, 4), 0.5)], 1: [((0, 0), 0.5)]}, r"fold 0 evaluated \(0, 4\)"),
    ],
)
def test_folds_that_cannot_agree_are_refused(histories, words):
    with pytest.raises(ValueError, match=words):
        consensus(histories, (4, 4))
