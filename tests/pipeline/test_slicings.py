"""Before the first fold of a run trains, every fold's slicing is known, and what cannot be meant is refused."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.hashing import sha256_of_file
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.pipeline.fold_steps import RunSettings, run_variables, steps_of_fold
from nnunetv2_slicemamba.pipeline.slicings import check_slicings, set_slicings, tell_slicings
from nnunetv2_slicemamba.pipeline.step import Command
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder, SupernetFolder
from nnunetv2_slicemamba.planning.selection import Selection, select
from nnunetv2_slicemamba.search import SearchSettings, SlicingFileError, read_slicing_file, write_slicing_file
from nnunetv2_slicemamba.search.evaluation.step_costs import StepCosts, network_conditions
from nnunetv2_slicemamba.trainers.offline import make_trainer, quiet

PLANS, SUPERNET, FINAL = "nnUNetSliceMambaSPlans", "SliceMambaSupernetTrainer_1epoch", "SliceMambaTrainer_1epoch"
SEARCHING = RunSettings(FINAL, SUPERNET, "cpu")
SETTINGS = replace(SEARCHING, search=False)


@pytest.fixture
def selections(workspace: Path) -> list[Selection]:
    return [select("901", "2d", fold, PLANS) for fold in ("0", "1")]


def told(selections: list[Selection]) -> str:
    console = Console(file=io.StringIO(), width=1000)
    tell_slicings(selections, SETTINGS, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def variable(selection: Selection, settings: RunSettings = SETTINGS) -> str:
    return run_variables(SupernetFolder(selection, settings.supernet_trainer), settings)["SLICEMAMBA_SLICING"]


def train_with(selection: Selection, slicing: tuple[int, int]) -> None:
    """Leaves the checkpoint of a finished final training with a thickness in all blocks."""
    folder = FoldFolder(selection, FINAL)
    with quiet():
        trainer = make_trainer(folder, torch.device("cpu"))
        trainer.initialize()
    trainer.network.set_slicing([slicing] * selection.n_blocks)
    folder.path.mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(str(folder.checkpoint))


def test_without_a_choice_every_fold_trains_with_the_fixed_slicing_and_the_run_says_so(
    selections: list[Selection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLICEMAMBA_SLICING", "of another day")
    check_slicings(selections, SETTINGS)
    assert told(selections).startswith("Slicing, fold 0, 1: 2x4 in all 7 blocks, the fixed one; --slicing chooses")
    (step,) = steps_of_fold(selections[0], SETTINGS)
    needed = step.look()
    assert isinstance(needed, Command)
    assert needed.name == "nnUNetv2_train"
    assert needed.variables["SLICEMAMBA_SLICING"] == ""  # the trainer takes the fixed one


def test_a_named_slicing_is_set_for_every_fold_and_taken(selections: list[Selection]) -> None:
    set_slicings(selections, "random:3", SETTINGS)
    check_slicings(selections, SETTINGS)
    files = [selection.set_slicing_file for selection in selections]
    assert [read_slicing_file(file).choice.seed for file in files] == [3, 3]
    assert [variable(selection) for selection in selections] == [str(file) for file in files]
    assert f"Slicing, fold 1: random, in {files[1]}" in told(selections)
    before = files[0].stat().st_mtime_ns
    set_slicings(selections, "random:3", SETTINGS)  # the same command continues
    assert files[0].stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="has no seed"):
        set_slicings(selections, "random", SETTINGS)


def test_a_named_slicing_that_a_finished_fold_was_not_trained_with_is_refused_and_nothing_is_written(
    selections: list[Selection],
) -> None:
    train_with(selections[1], (4, 4))
    with pytest.raises(InputError, match="fold_1.* was trained with another slicing than --slicing 2x4 names"):
        set_slicings(selections, "2x4", SETTINGS)
    assert not selections[0].set_slicing_file.exists()
    set_slicings(selections, "4x4", SETTINGS)
    assert "fold 1" not in told(selections)  # it trains no more


def test_a_finished_training_is_not_questioned_where_nothing_names_a_slicing(selections: list[Selection]) -> None:
    train_with(selections[0], (4, 4))
    check_slicings(selections, SETTINGS)
    SupernetFolder(selections[1], SUPERNET).path.mkdir(parents=True)
    check_slicings(selections[:1], SETTINGS)


def test_a_run_without_a_search_does_not_train_folds_whose_search_is_on_its_way(selections: list[Selection]) -> None:
    SupernetFolder(selections[0], SUPERNET).path.mkdir(parents=True)
    for selection in selections:
        with pytest.raises(InputError, match=f"fold {selection.fold} has no slicing yet, .*--search.*--slicing 2x4"):
            check_slicings([selection], SETTINGS)
    set_slicings(selections, "2x4", SETTINGS)
    check_slicings(selections, SETTINGS)


def test_a_searched_slicing_is_used_without_another_search(selections: list[Selection]) -> None:
    set_slicings(selections, "4x4", SETTINGS)
    for selection in selections:
        supernet = SupernetFolder(selection, "SliceMambaSharedSupernetTrainer")
        supernet.search.mkdir(parents=True)
        selection.set_slicing_file.rename(supernet.slicing_file)
        assert variable(selection) == str(supernet.slicing_file)


def test_a_search_is_refused_where_the_slicing_was_set_by_hand(selections: list[Selection]) -> None:
    set_slicings(selections[1:], "2x4", SETTINGS)
    with pytest.raises(InputError, match=r"fold 1 is not searched, .* set by hand \(fixed\): leave the search out"):
        check_slicings(selections, SEARCHING)


def test_a_search_of_other_plans_is_refused_before_anything_trains(selections: list[Selection]) -> None:
    supernet = SupernetFolder(selections[0], SUPERNET)
    set_slicings(selections[:1], "2x4", SETTINGS)
    supernet.search.mkdir(parents=True)
    selections[0].set_slicing_file.rename(supernet.slicing_file)
    content = read_slicing_file(supernet.slicing_file)
    choice = replace(content.choice, how_chosen="search")
    write_slicing_file(replace(content, choice=choice), supernet.slicing_file)
    check_slicings(selections, SEARCHING)
    fewer = replace(choice, slicing=choice.slicing[:-1], architecture=(choice.architecture or ())[:-1])
    write_slicing_file(replace(content, choice=fewer), supernet.slicing_file)
    with pytest.raises(SlicingFileError, match="has 6 blocks, this network has 7: it was chosen for"):
        check_slicings(selections, SEARCHING)


def test_a_slicing_file_that_cannot_be_read_ends_the_run_before_it_trains(selections: list[Selection]) -> None:
    set_slicings(selections, "2x4", SETTINGS)
    selections[1].set_slicing_file.write_text("{")
    with pytest.raises(SlicingFileError, match=r"fold_1\.json is no JSON"):
        check_slicings(selections, SETTINGS)


@pytest.mark.parametrize(
    ("limit", "arguments", "message"),
    [
        (6.0, ("--max-step", "60%"), ""),
        (6.0, (), ""),
        (8.0, ("--max-step", "60%"), "searched with --budget 80%, not 60%: leave --budget out to take it"),
        (None, ("--max-step", "60%"), "searched with --budget none, not 60%"),
        (None, ("--seed", "3", "--population", "4"), "searched with --population 50, not 4: leave --population out"),
    ],
)
def test_an_option_that_a_finished_search_did_not_have_is_refused(
    limit: float | None, arguments: tuple[str, ...], message: str, selections: list[Selection]
) -> None:
    supernet = SupernetFolder(selections[0], SUPERNET)
    set_slicings(selections[:1], "2x4", SETTINGS)
    supernet.search.mkdir(parents=True)
    selections[0].set_slicing_file.rename(supernet.slicing_file)
    supernet.checkpoint.write_text("trained")
    content = read_slicing_file(supernet.slicing_file)
    had = SearchSettings(seed=3, max_step_ms=limit).as_dict()
    choice = replace(content.choice, how_chosen="search", details={"settings": had})
    content = replace(content, choice=choice, supernet_checkpoint_sha256=sha256_of_file(supernet.checkpoint))
    write_slicing_file(content, supernet.slicing_file)
    costs = StepCosts(selections[0].candidates, 1.0, (), 10.0, 0.0, network_conditions(supernet))
    write_json(supernet.search / "step_costs.json", costs.as_dict())
    settings = replace(SEARCHING, search_arguments=arguments)
    if not message:
        check_slicings(selections, settings)
        return
    with pytest.raises(InputError, match=f"{message}.*'slicemamba search -d .* {' '.join(arguments)} --discard'"):
        check_slicings(selections, settings)
    supernet.checkpoint.write_text("trained anew")  # which is searched anew
    check_slicings(selections, settings)
