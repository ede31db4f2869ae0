"""`slicemamba run` trains what it searched, reads its own first stage, and finishes what is asked for."""

from __future__ import annotations

import copy
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from nnunetv2_slicemamba.common.folder_lock import FolderInUseError, in_use
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.hashing import sha256_of_file
from nnunetv2_slicemamba.common.json_reading import JsonFileError
from nnunetv2_slicemamba.pipeline import fold_steps
from nnunetv2_slicemamba.pipeline.in_a_row import StepsInARow, run_fold, steps_of_fold, totals
from nnunetv2_slicemamba.pipeline.step import Command, Finished
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder, SupernetFolder
from nnunetv2_slicemamba.planning.preprocessing import complete_data
from nnunetv2_slicemamba.planning.selection import Selection, select
from nnunetv2_slicemamba.search import SearchSettings, read_slicing_file, slicing_file_for_training
from nnunetv2_slicemamba.search.choosing.set_slicing import set_slicing
from nnunetv2_slicemamba.search.run import search_fold
from nnunetv2_slicemamba.slicing.file import write_slicing_file

PLANS, SUPERNET, FINAL = "nnUNetSliceMambaSPlans", "SliceMambaSupernetTrainer_1epoch", "SliceMambaTrainer_1epoch"
OTHER_SUPERNET = "SliceMambaSupernetTrainer_5epochs"
SETTINGS = fold_steps.RunSettings(FINAL, SUPERNET, "cpu")


@dataclass(frozen=True)
class Call:
    """A command that the chain ran, with the environment that it would have had."""

    arguments: list[str]
    environment: dict[str, str]


@pytest.fixture
def selection(workspace: Path) -> Selection:
    return select("901", "2d", "0", PLANS)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """The commands that the chain ran, which do nothing."""
    calls: list[Call] = []

    def note(
        name: str, arguments: Sequence[str], console: Console, variables: Mapping[str, str] | None = None, **_: Any
    ) -> None:
        calls.append(Call([name, *arguments], {**os.environ, **(variables or {})}))

    monkeypatch.setattr(fold_steps, "run_command", note)
    return calls


@pytest.fixture
def finish(selection: Selection) -> Callable[..., Path]:
    """finish(trainer, cases=2): its fold's folder as nnU-Net leaves a validated training of so many cases."""

    def make(trainer: str, cases: int = 2) -> Path:
        folder = selection.fold_folder(trainer)
        (folder / "validation").mkdir(parents=True)
        (folder / "checkpoint_final.pth").touch()
        metrics = {"1": {"Dice": 0.5}}
        entry = {"prediction_file": "case.png", "reference_file": "case.png", "metrics": metrics}
        summary = {"foreground_mean": {"Dice": 0.5}, "mean": metrics, "metric_per_case": [entry] * cases}
        (folder / "validation" / "summary.json").write_text(json.dumps(summary))
        return folder

    return make


def silent() -> Console:
    return Console(file=io.StringIO())


def take(needed: Command | Finished) -> None:
    if isinstance(needed, Command):
        fold_steps.take(needed, silent())


def put_slicing(supernet: SupernetFolder, value: str) -> Path:
    """Writes a slicing to where the supernet's search would."""
    file, _ = set_slicing(supernet, value)
    supernet.search.mkdir(parents=True, exist_ok=True)
    return file.rename(supernet.slicing_file)


@pytest.mark.parametrize("variable", ["", "of the other supernet"])
def test_the_final_training_takes_the_slicing_of_the_chains_supernet_whatever_else_there_is(
    variable: str,
    selection: Selection,
    called: list[Call],
    finish: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for supernet, slicing in ((SUPERNET, "2x4"), (OTHER_SUPERNET, "4x4")):
        finish(supernet)
        other = put_slicing(SupernetFolder(selection, supernet), slicing)
    monkeypatch.setenv("SLICEMAMBA_SLICING", variable and str(other))
    with pytest.raises(JsonFileError, match="summary.json cannot be read"):  # nothing was trained
        run_fold(selection, SETTINGS, StepsInARow(3, silent()))
    (training,) = called
    assert training.arguments[:6] == ["nnUNetv2_train", "Dataset901_Disks", "2d", "0", "-tr", FINAL]
    results = selection.configuration_folder(FINAL).parent
    found = slicing_file_for_training(results, PLANS, "2d", 0, training.environment)
    assert set(read_slicing_file(found).slicing) == {(2, 4)}


def test_a_cascades_supernet_and_search_read_the_first_stage_of_the_chains_final_trainer(
    selection: Selection, called: list[Call]
) -> None:
    inheriting = replace(SETTINGS, trainer="SliceMambaInheritTrainer_1epoch")
    supernet = SupernetFolder(selection, SUPERNET)
    take(fold_steps.training_needed(supernet, supernet, inheriting))
    take(fold_steps.search_needed(supernet, inheriting))
    assert [call.arguments[:2] for call in called] == [["nnUNetv2_train", "Dataset901_Disks"], ["slicemamba", "search"]]
    assert {call.environment["SLICEMAMBA_PREVIOUS_STAGE"] for call in called} == {"SliceMambaInheritTrainer_1epoch"}


@pytest.mark.parametrize(
    ("change", "again"),
    [("nothing", False), ("stopped", True), ("another supernet", True), ("by hand", False)],
)
def test_a_fold_is_searched_again_unless_a_finished_search_of_its_supernet_or_a_hand_chose(
    change: str, again: bool, selection: Selection, called: list[Call], finish: Callable[..., Path]
) -> None:
    checkpoint = finish(SUPERNET) / "checkpoint_final.pth"
    file = put_slicing(SupernetFolder(selection, SUPERNET), "2x4")
    content = replace(read_slicing_file(file), supernet_checkpoint_sha256=sha256_of_file(checkpoint))
    if change != "by hand":
        content = replace(content, choice=replace(content.choice, how_chosen="search"))
    write_slicing_file(replace(content, complete=change != "stopped"), file)
    if change in ("another supernet", "by hand"):
        checkpoint.write_bytes(b"trained anew")
    take(fold_steps.search_needed(SupernetFolder(selection, SUPERNET), SETTINGS))
    assert [call.arguments[:2] for call in called] == [["slicemamba", "search"]] * again


def test_a_finished_step_is_named_as_in_the_table_of_status(
    selection: Selection, called: list[Call], finish: Callable[..., Path]
) -> None:
    finish(SUPERNET)
    file = put_slicing(SupernetFolder(selection, SUPERNET), "2x4")
    shown = io.StringIO()
    steps = StepsInARow(3, Console(file=shown))
    fold = steps_of_fold(selection, SETTINGS)
    for step in fold:
        steps.begin_step(step)
    notes = [": finished before", f": finished before, slicing (fixed) in {file}", ""]
    told = [f"Step {n} of 3: {step.title}{note}" for n, (step, note) in enumerate(zip(fold, notes, strict=True), 1)]
    assert shown.getvalue().splitlines() == told


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_finished_fold_is_validated_again_until_every_case_has_the_probabilities_that_are_asked_for(
    written: int, selection: Selection, called: list[Call], finish: Callable[..., Path]
) -> None:
    for trainer in (FINAL, SUPERNET):
        finish(trainer, cases=2)
    for case in range(written):
        (selection.fold_folder(FINAL) / "validation" / f"case_{case}.npz").touch()
    for npz in (False, True):
        supernet = SupernetFolder(selection, SUPERNET)
        for folder in (supernet, FoldFolder(selection, FINAL)):
            take(fold_steps.training_needed(folder, supernet, replace(SETTINGS, npz=npz)))
    validated = [call.arguments for call in called]
    assert [(arguments[5], arguments[-2:]) for arguments in validated] == [(FINAL, ["--npz", "--val"])] * (written < 2)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_torn_summary_counts_as_none_and_the_fold_is_validated_again(
    share: float, selection: Selection, called: list[Call], finish: Callable[..., Path]
) -> None:
    summary = finish(FINAL) / "validation" / "summary.json"
    final, supernet = FoldFolder(selection, FINAL), SupernetFolder(selection, SUPERNET)
    take(fold_steps.training_needed(final, supernet, SETTINGS))
    assert called == []
    whole = summary.read_bytes()
    summary.write_bytes(whole[: int(share * len(whole))])
    take(fold_steps.training_needed(final, supernet, SETTINGS))
    assert [call.arguments[-1] for call in called] == ["--val"]
    with pytest.raises(JsonFileError, match=r"summary.json is no JSON: .*Make it again: nnUNetv2_train ... --val"):
        fold_steps.summary_dice(summary)


def test_a_supernet_without_plans_is_no_fault_of_the_steps_that_are_counted(selection: Selection) -> None:
    SupernetFolder(selection, SUPERNET).path.mkdir(parents=True)
    unplanned = replace(selection, plans={})
    steps = steps_of_fold(unplanned, replace(SETTINGS, search=False))
    assert totals(steps) == "1 step, none finished before"
    with pytest.raises(InputError, match=r"a search seems to be on its way in .* \(--slicing VALUE\)"):
        steps[0].look()


def test_a_fold_that_is_being_trained_is_neither_trained_nor_searched(
    selection: Selection, called: list[Call], finish: Callable[..., Path]
) -> None:
    supernet = SupernetFolder(selection, SUPERNET)
    with in_use(finish(SUPERNET)):
        with pytest.raises(FolderInUseError, match=f"{SUPERNET}.* is in use"):
            take(fold_steps.training_needed(supernet, supernet, SETTINGS))
        with pytest.raises(FolderInUseError, match=f"{SUPERNET}.* is in use"):
            search_fold(supernet, SearchSettings(), torch.device("cpu"))
    assert called == []


def test_folds_of_another_network_than_the_plans_hold_now_are_neither_validated_nor_joined_by_others(
    selection: Selection, called: list[Call], finish: Callable[..., Path]
) -> None:
    folder = finish(FINAL)
    (folder / "validation" / "summary.json").unlink()
    old = copy.deepcopy(selection.plans)
    old["configurations"]["2d"]["architecture"]["arch_kwargs"]["expand"] = 3
    (folder.parent / "plans.json").write_text(json.dumps(old))
    supernet = SupernetFolder(selection, SUPERNET)
    for fold in (0, 1):
        final = FoldFolder(replace(selection, fold=fold), FINAL)
        with pytest.raises(
            InputError, match=r"\(fold_0\) has another .* hold now: architecture.arch_kwargs.expand 2 in"
        ):
            fold_steps.training_needed(final, supernet, SETTINGS)
    # nothing was trained with those plans
    (folder / "checkpoint_final.pth").unlink()
    assert isinstance(fold_steps.training_needed(final, supernet, SETTINGS), Command)


@pytest.mark.parametrize("inside", ["nnUNetSliceMambaSPlans", None])
def test_plans_whose_file_has_another_name_are_refused_before_anything_is_trained(
    inside: str | None, workspace: Path
) -> None:
    folder = workspace / "nnUNet_preprocessed" / "Dataset901_Disks"
    plans = json.loads((folder / f"{PLANS}.json").read_text())
    (folder / "MyPlans.json").write_text(json.dumps({**plans, "plans_name": inside}))
    told = "MyPlans.json is named 'MyPlans', but .* 'nnUNetSliceMambaSPlans'.*change it.*pass -p"
    if inside is None:
        told = "MyPlans.json is not plans of nnU-Net: plans_name is null"
    with pytest.raises(InputError, match=told):
        select("901", "2d", "0", "MyPlans")
    with pytest.raises(InputError, match=told):  # what `run` does first
        complete_data("Dataset901_Disks", "MyPlans", "2d")
