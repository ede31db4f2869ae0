"""SliceMambaTrainer trains with the slicing that was chosen for its fold, else with the fixed one, and says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2_slicemamba.search import SlicingChoice, SlicingFile, write_slicing_file
from nnunetv2_slicemamba.slicing.fixed import fixed_slicing

NAME = "SliceMambaTrainer_1epoch"
CHOSEN = ((2, 4), (4, 2), (4, 4), (2, 2), (4, 2), (2, 2), (4, 4))
OTHER = ((4, 4),) * 7


def write(file: Path, slicing: tuple[tuple[int, ...], ...], fold: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_slicing_file(
        SlicingFile(
            choice=SlicingChoice(slicing, "fixed"),
            candidates=(),
            fitness_definition=None,
            dataset="Dataset901_Disks",
            configuration="2d",
            plans_name="nnUNetSliceMambaSPlans",
            fold=fold,
            supernet_checkpoint_sha256=None,
            plans_sha256=None,
        ),
        file,
    )
    return file


@pytest.fixture
def folds_file(workspace: Path) -> Path:
    """Where a search would write the slicing of fold 0."""
    results = workspace / "nnUNet_results" / "Dataset901_Disks"
    trainer = "SliceMambaSupernetTrainer_50epochs__nnUNetSliceMambaSPlans__2d"
    return results / trainer / "fold_0" / "slicing_search" / "best_slicing.json"


@pytest.fixture
def set_file(workspace: Path) -> Path:
    """Where a slicing of fold 0 lies that was set by hand."""
    results = workspace / "nnUNet_results" / "Dataset901_Disks"
    return results / "slicings" / "nnUNetSliceMambaSPlans__2d" / "fold_0.json"


@pytest.fixture
def other_supernets_file(folds_file: Path) -> Path:
    """Where a search with another supernet of the same plans would write the slicing of fold 0."""
    return Path(str(folds_file).replace("SupernetTrainer_50epochs", "SharedSupernetTrainer"))


def continued(trainer: Any, slicing: tuple[tuple[int, ...], ...]) -> Any:
    """The trainer as after loading a checkpoint that was trained with `slicing`."""
    trainer.bare_network.set_slicing(slicing)
    trainer.current_epoch = 1
    return trainer


def test_training_starts_with_the_folds_slicing_and_says_so(make_trainer: Callable[..., Any], folds_file: Path) -> None:
    write(folds_file, CHOSEN)
    trainer = make_trainer(NAME, initialize=False)
    trainer.on_train_start()
    assert trainer.bare_network.get_slicing() == CHOSEN
    assert trainer.network.state_dict()["slicing"].tolist() == [list(thickness) for thickness in CHOSEN]
    assert str(folds_file) in Path(trainer.log_file).read_text()


def test_the_file_wins_over_the_slicing_of_pretrained_weights(
    make_trainer: Callable[..., Any], folds_file: Path
) -> None:
    write(folds_file, CHOSEN)
    trainer = make_trainer(NAME)
    # as -pretrained_weights leaves it: the other network's buffer with its weights
    trainer.network.load_state_dict(trainer.network.state_dict() | {"slicing": torch.tensor(OTHER, dtype=torch.uint8)})
    assert trainer.bare_network.get_slicing() == OTHER
    trainer.on_train_start()
    assert trainer.bare_network.get_slicing() == CHOSEN


def test_the_variable_names_another_file(
    make_trainer: Callable[..., Any], folds_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folds_file, CHOSEN)
    monkeypatch.setenv("SLICEMAMBA_SLICING", str(write(tmp_path / "mine.json", OTHER)))
    trainer = make_trainer(NAME)
    trainer.on_train_start()
    assert trainer.bare_network.get_slicing() == OTHER


@pytest.mark.parametrize("fold", [0, 1])
def test_the_log_tells_a_slicing_of_another_fold_which_is_trained_all_the_same(
    fold: int, make_trainer: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLICEMAMBA_SLICING", str(write(tmp_path / "mine.json", CHOSEN, fold)))
    trainer = make_trainer(NAME)
    trainer.on_train_start()
    assert trainer.bare_network.get_slicing() == CHOSEN
    here = "Dataset901_Disks nnUNetSliceMambaSPlans 2d"
    said = f"is of {here} 1, this training of {here} 0"
    assert (said in Path(trainer.log_file).read_text()) == (fold == 1)


def test_without_a_choice_all_blocks_get_the_fixed_slicing_and_the_log_says_how_to_choose_another(
    make_trainer: Callable[..., Any],
) -> None:
    trainer = make_trainer(NAME, initialize=False)
    trainer.on_train_start()
    assert trainer.bare_network.get_slicing() == ((2, 4),) * 7
    assert trainer.network.state_dict()["slicing"].tolist() == [[2, 4]] * 7
    (line,) = (line for line in Path(trainer.log_file).read_text().splitlines() if "Slicing" in line)
    assert "Slicing 2x4 in all 7 blocks, the fixed one" in line
    assert "'slicemamba slicing -d Dataset901_Disks -c 2d -f 0 -p nnUNetSliceMambaSPlans --set VALUE'" in line


def test_the_fixed_slicing_is_a_default_for_networks_of_two_and_three_axes() -> None:
    assert {n_dims: set(fixed_slicing(3, n_dims)) for n_dims in (2, 3)} == {2: {(2, 4)}, 3: {(2, 4, 2)}}


@pytest.mark.parametrize("fold", [0, 1])
def test_where_a_search_is_on_its_way_training_does_not_start_and_the_three_ways_to_get_a_slicing_are_named(
    fold: int, make_trainer: Callable[..., Any], folds_file: Path
) -> None:
    # `run --search` trains one fold's supernet after another
    (folds_file.parents[2] / f"fold_{fold}").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="a search seems to be on its way") as caught:
        make_trainer(NAME).on_train_start()
    for way in ("slicemamba search -d Dataset901_Disks -c 2d -f 0", "slicemamba slicing", "SLICEMAMBA_SLICING=FILE"):
        assert way in str(caught.value)


def test_a_file_that_cannot_be_read_is_an_error_and_no_reason_for_the_fixed_slicing(
    make_trainer: Callable[..., Any], set_file: Path
) -> None:
    set_file.parent.mkdir(parents=True)
    set_file.write_text("{")
    with pytest.raises(ValueError, match=r"fold_0\.json is no JSON"):
        make_trainer(NAME).on_train_start()


def test_a_slicing_that_was_set_by_hand_is_taken_before_a_searched_one(
    make_trainer: Callable[..., Any], folds_file: Path, set_file: Path
) -> None:
    write(folds_file, OTHER)
    write(set_file, CHOSEN)
    trainer = make_trainer(NAME)
    trainer.on_train_start()
    assert trainer.bare_network.get_slicing() == CHOSEN


@pytest.mark.parametrize(
    ("slicing", "message"),
    [
        (((2, 2),) * 22, "has 22 blocks, this network has 7"),
        (((2, 2, 2),) * 7, "3 axes, this network has 2"),
    ],
)
def test_a_slicing_of_another_network_is_refused(
    slicing: tuple[tuple[int, ...], ...], message: str, make_trainer: Callable[..., Any], folds_file: Path
) -> None:
    write(folds_file, slicing)
    with pytest.raises(ValueError, match=message):
        make_trainer(NAME).on_train_start()


def test_continuing_beside_another_slicing_is_refused_with_the_file(
    make_trainer: Callable[..., Any], folds_file: Path
) -> None:
    write(folds_file, CHOSEN)
    trainer = continued(make_trainer(NAME), OTHER)
    with pytest.raises(ValueError, match="was trained with another slicing") as caught:
        trainer.on_train_start()
    assert str(folds_file) in str(caught.value)
    assert trainer.output_folder in str(caught.value)
    assert trainer.bare_network.get_slicing() == OTHER


@pytest.mark.parametrize("file_is_there", [True, False])
def test_continuing_keeps_the_checkpoints_slicing_and_needs_no_file(
    file_is_there: bool, make_trainer: Callable[..., Any], folds_file: Path
) -> None:
    if file_is_there:
        write(folds_file, CHOSEN)
    trainer = continued(make_trainer(NAME), CHOSEN)
    trainer.on_train_start()
    assert trainer.bare_network.get_slicing() == CHOSEN


def test_continuing_beside_several_supernets_slicings_needs_one_that_is_the_checkpoints(
    make_trainer: Callable[..., Any], folds_file: Path, other_supernets_file: Path
) -> None:
    for file, slicing in ((folds_file, OTHER), (other_supernets_file, CHOSEN)):
        write(file, slicing)
    trainer = continued(make_trainer(NAME), CHOSEN)
    trainer.on_train_start()
    assert trainer.bare_network.get_slicing() == CHOSEN

    write(other_supernets_file, OTHER)
    with pytest.raises(ValueError, match="was trained with another slicing") as caught:
        continued(make_trainer(NAME), CHOSEN).on_train_start()
    for folder in (folds_file, other_supernets_file, trainer.output_folder):
        assert str(folder) in str(caught.value)


def test_a_new_training_beside_several_supernets_slicings_is_refused_even_if_they_are_equal(
    make_trainer: Callable[..., Any], folds_file: Path, other_supernets_file: Path
) -> None:
    for file in (folds_file, other_supernets_file):
        write(file, CHOSEN)
    with pytest.raises(ValueError, match="2 supernets have a slicing"):
        make_trainer(NAME).on_train_start()
