"""The slicing of a fold is found, or it is said how to get one."""

import pytest

from nnunetv2_slicemamba.search import (
    SLICING_VARIABLE,
    SeveralSlicingsError,
    SlicingNotFoundError,
    find_slicing_file,
    slicing_file_for_training,
    slicing_search_folder,
)
from nnunetv2_slicemamba.slicing.find import NothingChosenError, set_slicing_file

PLANS = "nnUNetSliceMambaSPlans"


@pytest.fixture
def results(tmp_path):
    return tmp_path / "Dataset999_Test"


def put(results, trainer="SliceMambaSupernetTrainer", plans=PLANS, configuration="2d", fold=0):
    folder = slicing_search_folder(results / f"{trainer}__{plans}__{configuration}" / f"fold_{fold}")
    folder.mkdir(parents=True)
    (folder / "best_slicing.json").write_text("{}")
    return folder / "best_slicing.json"


@pytest.mark.parametrize(
    "trainer",
    [
        "SliceMambaSupernetTrainer",
        "SliceMambaSupernetTrainer_5epochs",
        "SliceMambaSharedSupernetTrainer",
        "SliceMambaSharedSupernetTrainer_100epochs",
    ],
)
def test_the_slicing_of_whichever_supernet_has_one_is_found(results, trainer):
    file = put(results, trainer)
    for other in ({"fold": 1}, {"plans": "OtherPlans"}, {"configuration": "3d_fullres"}):
        put(results, trainer, **other)
    put(results, "SliceMambaTrainer")
    put(results, "nnUNetTrainer")
    (results / "a_file").write_text("")
    assert find_slicing_file(results, PLANS, "2d", 0) == file


def test_a_slicing_that_was_set_by_hand_comes_first_and_no_supernets_folder_is_made_for_it(results):
    put(results)
    file = set_slicing_file(results, PLANS, "2d", 0)
    assert not file.exists()
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    assert find_slicing_file(results, PLANS, "2d", 0) == file
    assert file == results / "slicings" / f"{PLANS}__2d" / "fold_0.json"


def test_nothing_was_chosen_only_as_long_as_no_supernet_of_these_plans_was_begun(results):
    put(results, plans="OtherPlans")
    with pytest.raises(NothingChosenError):
        find_slicing_file(results, PLANS, "2d", 0)
    put(results, fold=1)
    with pytest.raises(SlicingNotFoundError) as error:
        find_slicing_file(results, PLANS, "2d", 0)
    assert not isinstance(error.value, NothingChosenError)
    with pytest.raises(SlicingNotFoundError) as error:
        slicing_file_for_training(results, PLANS, "3d_fullres", 0, {SLICING_VARIABLE: "nowhere.json"})
    assert not isinstance(error.value, NothingChosenError)


def test_fold_all_is_a_fold(results):
    file = put(results, fold="all")
    assert find_slicing_file(results, PLANS, "2d", "all") == file


def test_fold_1_is_not_fold_10(results):
    put(results, fold=10)
    with pytest.raises(SlicingNotFoundError):
        find_slicing_file(results, PLANS, "2d", 1)


@pytest.mark.parametrize("make_folder", [True, False])
def test_without_one_the_error_gives_the_three_ways_to_get_one(results, make_folder):
    if make_folder:
        put(results, fold=1)
    with pytest.raises(SlicingNotFoundError) as error:
        find_slicing_file(results, PLANS, "2d", 0)
    message = str(error.value)
    assert f"slicemamba search -d Dataset999_Test -c 2d -f 0 -p {PLANS}\n" in message
    assert f"slicemamba slicing -d Dataset999_Test -c 2d -f 0 -p {PLANS} --set 2x4\n" in message
    assert "export SLICEMAMBA_SLICING=FILE\n" in message
    assert str(results) in message


def test_the_search_that_is_named_is_that_of_the_supernet_that_was_begun(results):
    begun = "SliceMambaSupernetTrainer_5epochs"
    (results / f"{begun}__{PLANS}__2d").mkdir(parents=True)
    with pytest.raises(SlicingNotFoundError, match=rf"slicemamba search .* -p {PLANS} -tr {begun}\n"):
        find_slicing_file(results, PLANS, "2d", 0)


def test_several_are_listed_and_the_variable_decides(results):
    files = [put(results), put(results, "SliceMambaSharedSupernetTrainer")]
    with pytest.raises(SeveralSlicingsError, match=r"2 supernets have a slicing .*fold 0") as error:
        slicing_file_for_training(results, PLANS, "2d", 0, {})
    assert all(str(file) in str(error.value) for file in files)
    assert sorted(error.value.files) == sorted(files)
    assert "SLICEMAMBA_SLICING=FILE decides" in str(error.value)
    assert slicing_file_for_training(results, PLANS, "2d", 0, {SLICING_VARIABLE: str(files[1])}) == files[1]


def test_the_variable_is_read_from_the_environment(results, monkeypatch):
    own, other = put(results), put(results, fold=3)
    assert slicing_file_for_training(results, PLANS, "2d", 0) == own
    monkeypatch.setenv(SLICING_VARIABLE, str(other))
    assert slicing_file_for_training(results, PLANS, "2d", 0) == other
    monkeypatch.setenv(SLICING_VARIABLE, "")
    assert slicing_file_for_training(results, PLANS, "2d", 0) == own


def test_a_variable_that_names_no_file_is_refused_even_if_the_fold_has_one(results):
    put(results)
    with pytest.raises(SlicingNotFoundError, match=r"SLICEMAMBA_SLICING is nowhere\.json, which is no file; .* unset"):
        slicing_file_for_training(results, PLANS, "2d", 0, {SLICING_VARIABLE: "nowhere.json"})


def test_a_user_without_a_home_gets_a_message(results, monkeypatch):
    def no_entry(_):
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", no_entry)
    with pytest.raises(SlicingNotFoundError, match="is ~/best_slicing.json, which is no file"):
        slicing_file_for_training(results, PLANS, "2d", 0, {SLICING_VARIABLE: "~/best_slicing.json"})
