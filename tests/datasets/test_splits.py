"""Splits hold out what they promise and never let a case, or a video, stand on two sides."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nnunetv2_slicemamba.datasets.converters.clinicdb import VIDEOS, video_of_frame
from nnunetv2_slicemamba.datasets.splits import (
    Fold,
    Split,
    SplitChoice,
    drawn_split,
    parse_split,
    parts_split,
    random_folds,
    sequence_split,
)

NONE = SplitChoice("none")
CASES = [f"case_{i:02d}" for i in range(23)]
ALL_FRAMES = {f"clinicdb_{frame:03d}": video_of_frame(frame) for frame in range(1, 613)}


def assert_cross_validation(folds: list[Fold], cases: set[str]) -> None:
    """Every case validates exactly once, and trains in all the other folds."""
    assert sorted(case for fold in folds for case in fold["val"]) == sorted(cases)
    for fold in folds:
        assert set(fold["train"]) == cases - set(fold["val"])


def test_random_folds_validate_every_case_once_and_follow_the_seed() -> None:
    folds = random_folds(CASES, 3)
    assert len(folds) == 5
    assert_cross_validation(folds, set(CASES))
    assert random_folds(list(reversed(CASES)), 3) == folds
    assert random_folds(CASES, 4) != folds


@pytest.mark.parametrize("cases", [2, 3, 4])
def test_fewer_cases_than_five_folds_make_a_fold_each(cases: int) -> None:
    folds = random_folds(CASES[:cases], 0)
    assert len(folds) == cases
    assert_cross_validation(folds, set(CASES[:cases]))
    split = drawn_split(SplitChoice("random", 0), CASES[:cases], frozenset())
    assert split.notes == (f"{cases} random folds of {cases} cases, seed 0",)
    with pytest.raises(ValueError, match="1 training case cannot make folds; give --split none"):
        random_folds(CASES[:1], 0)


@pytest.mark.parametrize("split", [lambda c: parts_split({"train": c}), lambda c: drawn_split(NONE, c, frozenset())])
def test_nnunets_five_folds_are_promised_only_where_it_can_draw_them(split: Callable[[list[str]], Split]) -> None:
    few = "and {} cannot make nnU-Net's five folds: train with -f all"
    assert split(CASES[:5]).notes[-1].endswith(": nnU-Net draws five folds of the 5 training cases")
    more = ", or give --split random:0, which makes 3 folds"
    assert split(CASES[:3]).notes[-1].endswith(few.format("3 training cases") + more)
    assert split(CASES[:1]).notes[-1].endswith(few.format("1 training case"))


@pytest.mark.parametrize("seed", range(5))
def test_no_video_of_clinicdb_is_on_two_sides(seed: int) -> None:
    split = sequence_split(ALL_FRAMES, seed)
    assert split.folds is not None
    assert len(split.folds) == 5
    assert_cross_validation(split.folds, set(ALL_FRAMES) - split.test)
    test = {ALL_FRAMES[case] for case in split.test}
    for fold in split.folds:
        train, val = ({ALL_FRAMES[case] for case in fold[side]} for side in ("train", "val"))
        assert not train & val
        assert not (train | val) & test
        # balanced: no fold differs from a fifth by more than the longest video
        assert abs(len(fold["val"]) - (612 - len(split.test)) / 5) <= 26
    assert 62 <= len(split.test) < 62 + 26


def test_sequences_are_held_out_as_the_seed_says() -> None:
    assert sequence_split(ALL_FRAMES, 1).test == sequence_split(dict(reversed(ALL_FRAMES.items())), 1).test
    assert sequence_split(ALL_FRAMES, 1).test != sequence_split(ALL_FRAMES, 2).test


def test_two_videos_cannot_be_split_three_ways() -> None:
    frames = {str(i): video_of_frame(i) for i in range(1, VIDEOS[1][1] + 1)}
    with pytest.raises(ValueError, match="frames of 2 sequences; .* needs at least three"):
        sequence_split(frames, 0)


def test_folders_make_fold_0_and_the_search_folder_one_more() -> None:
    split = parts_split({"train": ["a", "b", "c"], "val": ["v", "w"], "test": ["t"]}, ["b", "v"])
    assert split.test == {"t"}
    assert split.folds == [
        {"train": ["a", "b", "c"], "val": ["v", "w"]},
        {"train": ["a", "c"], "val": ["b", "v"]},
    ]


def test_a_search_folder_that_is_the_validation_folder_needs_no_second_fold() -> None:
    split = parts_split({"train": ["a"], "val": ["v", "w"]}, ["w", "v"])
    assert split.folds == [{"train": ["a"], "val": ["v", "w"]}]


def test_without_validation_nnunet_draws_the_folds() -> None:
    assert parts_split({"train": ["a", "b"]}).folds is None


@pytest.mark.parametrize(
    ("text", "choice"),
    (
        ("published", SplitChoice("published")),
        ("none", SplitChoice("none")),
        ("random:7", SplitChoice("random", 7)),
        ("by-sequence", SplitChoice("by-sequence", 0)),
        ("by-sequence:2", SplitChoice("by-sequence", 2)),
    ),
)
def test_splits_are_named_on_the_command_line(text: str, choice: SplitChoice) -> None:
    assert parse_split(text) == choice


@pytest.mark.parametrize("text", ("random", "random:x", "official", "published:1", ""))
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="give published, random:SEED"):
        parse_split(text)
