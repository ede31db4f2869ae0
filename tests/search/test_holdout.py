"""A holdout is drawn by its seed, and belongs to one split of one fold."""

import dataclasses
import json

import pytest

from nnunetv2_slicemamba.common.folder_lock import FolderInUseError, in_use
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.planning.selection import select
from nnunetv2_slicemamba.search import Holdout, HoldoutError, draw_holdout, read_holdout
from nnunetv2_slicemamba.search.holdout import hold_out, remove_holdout
from nnunetv2_slicemamba.slicing.holdout_file import check_fits, check_trained_with, sha256_of_split, write_holdout

CASES = [f"case_{i:02d}" for i in range(20)]
VALIDATION = ["other_0", "other_1"]
PLACE = ("Dataset999_Test", "nnUNetSliceMambaSPlans", "2d", 0)
HOLDOUT = Holdout(*PLACE, 0.2, 3, draw_holdout(CASES, 0.2, 3), sha256_of_split(CASES, VALIDATION))


def test_the_draw_depends_on_the_cases_and_the_seed_alone():
    drawn = draw_holdout(CASES, 0.2, 3)
    assert drawn == draw_holdout(CASES[::-1], 0.2, 3)
    assert len(set(drawn)) == 4
    assert set(drawn) < set(CASES)
    assert list(drawn) == sorted(drawn)
    assert len({draw_holdout(CASES, 0.2, seed) for seed in range(20)}) > 15
    # every case can be held out
    assert set().union(*(draw_holdout(CASES, 0.2, seed) for seed in range(60))) == set(CASES)


@pytest.mark.parametrize(("fraction", "number"), [(0.025, 1), (0.1, 2), (0.125, 3), (0.5, 10), (0.97, 19)])
def test_the_fraction_is_rounded_to_whole_cases(fraction, number):
    assert len(draw_holdout(CASES, fraction, 0)) == number


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2, 20, float("nan")])
def test_a_fraction_outside_0_and_1_is_refused(fraction):
    with pytest.raises(HoldoutError, match=rf"the fraction is {fraction}, it must lie between 0 and 1; 0.2 is usual"):
        draw_holdout(CASES, fraction, 0)


@pytest.mark.parametrize(
    ("cases", "fraction", "words"),
    [
        (CASES, 0.01, "0.01 of 20 training cases holds out 0 of them; .* give 0.05 or more"),
        (
            CASES,
            0.99,
            "0.99 of 20 training cases holds out 20 of them; at least one must be held out and one must stay",
        ),
        (CASES[:1], 0.5, "0.5 of 1 training cases holds out 1"),
        ([], 0.5, "0.5 of 0 training cases holds out 0"),
    ],
)
def test_a_case_is_needed_on_either_side(cases, fraction, words):
    with pytest.raises(HoldoutError, match=words):
        draw_holdout(cases, fraction, 0)


def test_what_was_written_is_read_again_and_what_is_not_there_is_none(tmp_path):
    file = tmp_path / "slicing_search" / "holdout.json"
    assert read_holdout(file) is None
    write_holdout(HOLDOUT, file)
    assert read_holdout(file) == HOLDOUT
    assert json.loads(file.read_text())["schema_version"] == 1
    assert [path.name for path in file.parent.iterdir()] == ["holdout.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        json.dumps({**HOLDOUT.as_dict(), "schema_version": 2}),
        json.dumps({**HOLDOUT.as_dict(), "cases": []}),
        json.dumps({**HOLDOUT.as_dict(), "cases": "case_01"}),
    ],
)
def test_a_file_that_is_none_is_named_with_the_remedy(tmp_path, text):
    file = tmp_path / "holdout.json"
    file.write_text(text)
    with pytest.raises(
        HoldoutError, match=r"holdout.json (is no|cannot be used).*Make it again with 'slicemamba holdout'"
    ):
        read_holdout(file)


def test_a_holdout_fits_its_own_split_in_any_order(tmp_path):
    check_fits(HOLDOUT, tmp_path, PLACE, CASES[::-1], VALIDATION[::-1])


@pytest.mark.parametrize(
    ("place", "training", "validation", "words"),
    [
        (PLACE, [*CASES, "new"], VALIDATION, "another split than fold 0 has now .its cases are others.*splits_final"),
        (PLACE, CASES, ["other_0"], "another split"),
        (PLACE, VALIDATION, CASES, rf"another split .*'{HOLDOUT.cases[0]}' is no training case"),
        ((*PLACE[:3], 1), CASES, VALIDATION, r"is of Dataset999_Test .* 2d 0, it lies in the folder of .* 2d 1"),
        (("Dataset998_Other", *PLACE[1:]), CASES, VALIDATION, "it lies in the folder of Dataset998_Other"),
    ],
)
def test_a_holdout_of_another_split_or_fold_is_refused(tmp_path, place, training, validation, words):
    with pytest.raises(HoldoutError, match=words) as refusal:
        check_fits(HOLDOUT, tmp_path / "holdout.json", place, training, validation)
    assert "'slicemamba holdout --remove'" in str(refusal.value)


def test_a_supernet_goes_with_the_holdout_that_it_was_trained_with_and_no_other(tmp_path):
    other = dataclasses.replace(HOLDOUT, seed=4, cases=draw_holdout(CASES, 0.2, 4))
    for same in (None, HOLDOUT):
        check_trained_with(same, same, tmp_path, "SliceMambaSupernetTrainer")
    with pytest.raises(HoldoutError, match=r"trained without a holdout, on all training cases.*4 cases.*--remove"):
        check_trained_with(None, HOLDOUT, tmp_path, "SliceMambaSupernetTrainer")
    for present, shown in ((None, "now there is none"), (other, r"now there is a holdout of 4 cases .*seed 4")):
        with pytest.raises(HoldoutError, match=rf"trained with a holdout of 4 cases .*seed 3\), {shown}") as refusal:
            check_trained_with(HOLDOUT, present, tmp_path, "SliceMambaSupernetTrainer")
        command = (
            "slicemamba holdout -d Dataset999_Test -c 2d -f 0 -p nnUNetSliceMambaSPlans "
            "-tr SliceMambaSupernetTrainer --fraction 0.2 --seed 3"
        )
        assert command in str(refusal.value)


def test_no_holdout_changes_while_the_supernet_is_trained_or_searched(workspace):
    """A training has read it before there is a checkpoint that says so."""
    folder = SupernetFolder(select("901", "2d", "0", "nnUNetSliceMambaSPlans"), "SliceMambaSupernetTrainer_1epoch")
    with in_use(folder.path):
        with pytest.raises(FolderInUseError, match=f"{folder.path} is in use"):
            hold_out(folder, 0.5)
        assert not folder.holdout_file.exists()
    hold_out(folder, 0.5)
    with in_use(folder.path), pytest.raises(FolderInUseError, match=f"{folder.path} is in use"):
        remove_holdout(folder)
    assert remove_holdout(folder) == folder.holdout_file
