"""Candidates are named in a text, kept as numbers, and never taken for others of as many."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from nnunetv2_slicemamba.search import SlicingChoice, SlicingFile, SlicingFileError
from nnunetv2_slicemamba.slicing.candidate_sets import check_trained_candidates, name_of, named_candidates
from nnunetv2_slicemamba.slicing.candidates import (
    Slicing,
    axes_of,
    candidate_of_row,
    default_candidates,
    in_order,
    listed,
    reading_of,
    row_of,
    wide_candidates,
)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_names_and_lists_stand_for_candidates_and_are_read_again(n_dims: int) -> None:
    assert named_candidates("paper", n_dims) is None
    wide = named_candidates("wide", n_dims)
    assert wide == wide_candidates(n_dims)
    assert len(wide) == len(set(wide)) == 2**n_dims + 4
    own = named_candidates("1, 4 ,no-block", n_dims)
    assert own == ((1,) * n_dims, (4,) * n_dims, "no-block")
    for one in (wide, own):
        assert named_candidates(name_of(one), n_dims) == one


def test_a_list_for_other_axes_leaves_the_default() -> None:
    assert named_candidates("2x4x2,no-scan", 2) is None
    assert named_candidates("2x4x2,8", 3) == ((2, 4, 2), (8, 8, 8))
    assert named_candidates("4@d,2", 2) is None
    assert named_candidates("2x4@h", 2) is None


def test_bands_along_one_axis_are_candidates() -> None:
    assert named_candidates("4@h,2@w,no-scan", 2) == ("4@h", "2@w", "no-scan")
    assert named_candidates("4@h,2x4@d,1", 3) == ("4x4@h", "2x4@d", (1, 1, 1))
    assert axes_of(("no-scan", "2x4@d")) == 3
    assert in_order(["no-block", "4@h", (2, 2), "2@w"]) == [(2, 2), "2@w", "4@h", "no-block"]
    assert reading_of("4@h") == (0, 4)
    assert reading_of("2x4@h") == (2, 0, 4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "wider",
            "the candidate 'wider' does not exist: give paper, wide, or a list of thicknesses",
        ),
        ("2,,4", "the candidate '' does not exist"),
        ("2x4,2x4x2", "have thicknesses of 2 and 3 axes"),
        ("2x2x2x2", "have thicknesses of 4 axes"),
        ("0", "is out of range: every entry must be a whole number from 1 to 255"),
        ("2x300", "is out of range"),
        ("4@x", "candidate '4@x' does not exist"),
        ("300@h", "candidate '300@h' must have a thickness from 1 to 253"),
        ("0@w", "must have a thickness from 1 to 253 for each of the 1 axes that bands do not follow"),
        ("2x4@h,2x4", "have thicknesses of 2 and 3 axes"),
        ("2,2x2", "must be 1 to 256 different slicings: drop what is named twice"),
    ],
)
def test_what_names_no_candidates_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        named_candidates(text, 2)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_every_candidate_comes_back_from_its_row_in_the_weights(n_dims: int) -> None:
    along_one = ("1@h", "2@h", "253@h", "7@w") if n_dims == 2 else ("1x1@d", "2x255@h", "1x2@w")
    for candidate in (*wide_candidates(n_dims), (255,) * n_dims, *along_one):
        assert candidate_of_row(list(row_of(candidate, n_dims))) == candidate


def swapped(candidates: Slicing) -> Slicing:
    return (candidates[1], candidates[0], *candidates[2:])


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("kind", [default_candidates, wide_candidates])
def test_a_supernet_of_other_candidates_is_refused_with_both_sets(n_dims: int, kind: object) -> None:
    own = kind(n_dims)  # type: ignore[operator]
    recorded = {"slicing_candidates": [one if isinstance(one, str) else list(one) for one in own]}
    check_trained_candidates(recorded, own, Path("fold_0"))
    both = f"was trained with the candidates {listed(own)}, the plans have {listed(swapped(own))} now; restore"
    with pytest.raises(ValueError, match=both):
        check_trained_candidates(recorded, swapped(own), Path("fold_0"))


@pytest.mark.parametrize("n_dims", [2, 3])
def test_a_slicing_chosen_among_other_candidates_is_refused_with_both_sets(n_dims: int) -> None:
    own = wide_candidates(n_dims)
    choice = SlicingChoice(own[:3], "search", (0, 1, 2), fitness=0.9)
    content = SlicingFile(choice, own, None, "Dataset001_A", "x", "Plans", 0, None, None)
    content.check_candidates(own)
    with pytest.raises(SlicingFileError) as refusal:
        content.check_candidates(default_candidates(n_dims))
    assert f"(search) among the candidates {listed(own)}, the plans have {listed(default_candidates(n_dims))};" in str(
        refusal.value
    )
    # what was set by hand was chosen among none
    replace(content, choice=replace(choice, how_chosen="fixed")).check_candidates(default_candidates(n_dims))
