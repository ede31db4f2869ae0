"""Steps in a row tell their numbers, trainings their epochs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from nnunetv2_slicemamba.common.commands import CommandError
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.verbosity import VARIABLE, VERBOSE
from nnunetv2_slicemamba.common.watch import Watch, WatchAll
from nnunetv2_slicemamba.pipeline import fold_steps
from nnunetv2_slicemamba.pipeline.in_a_row import StepsInARow, totals
from nnunetv2_slicemamba.pipeline.step import Command, Finished, Step
from nnunetv2_slicemamba.pipeline.training_watch import TrainingWatch
from tests.pipeline.test_progress import END, EPOCH


def step(name: str, finished: bool, after: tuple[str, ...] = (), training: Path | None = None) -> Step:
    needed = Finished("in a folder") if finished else Command("nnUNetv2_train", (name,))
    return Step(name, "0", name, after, lambda: needed, training)


def test_every_step_tells_its_number_and_what_it_has_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: object, **__: object) -> None:
        (tmp_path / "validation").mkdir()
        summary = {"foreground_mean": {"Dice": 0.5}, "mean": {}, "metric_per_case": []}
        (tmp_path / "validation" / "summary.json").write_text(json.dumps(summary))

    monkeypatch.setattr(fold_steps, "run_command", train)
    shown = io.StringIO()
    steps = StepsInARow(3, Console(file=shown, width=400))
    steps.begin("plan")
    for one in (step("supernet", True), step("training", False, training=tmp_path)):
        steps.take(one)
    lines = shown.getvalue().splitlines()
    assert lines[:3] == [
        "Step 1 of 3: plan",
        "Step 2 of 3: fold 0, supernet: finished before, in a folder",
        "Step 3 of 3: fold 0, training",
    ]
    assert lines[3].startswith("fold 0, training: finished in ")
    assert lines[3].endswith("s, validation Dice 0.5000")


def test_an_error_names_the_step_as_its_line_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise CommandError("'nnUNetv2_train' failed with exit code 1")

    monkeypatch.setattr(fold_steps, "run_command", fail)
    with pytest.raises(CommandError, match=r"^fold 0, training: 'nnUNetv2_train' failed with exit code 1"):
        StepsInARow(1, Console(file=io.StringIO())).take(step("training", False))


def test_a_step_whose_files_are_made_anew_is_still_to_do() -> None:
    def refuse() -> Command | Finished:
        raise ValueError("cannot be read")

    steps = [step("a", True), step("b", False, ("a",)), step("c", True, ("b",)), Step("d", "", "d", (), refuse)]
    assert totals(steps) == "4 steps, 1 finished before, 3 to do"
    assert totals(steps[1:2]) == "1 step, none finished before"


def test_a_training_tells_every_epoch_once_in_a_log_file(tmp_path: Path) -> None:
    (tmp_path / "debug.json").write_text(json.dumps({"num_epochs": "2"}))
    log, shown = tmp_path / "training_log_2026_3_2.txt", io.StringIO()
    text, told = "", []
    with TrainingWatch(tmp_path, Console(file=shown)) as watch:
        watch.read("2026-03-02 10:00:00.1: Using torch.compile...\n")
        told.append(watch.latest)
        for epoch in range(2):
            for line in f"{EPOCH.format(epoch)}warning: read\n{END.format('-0.4321', '0.25, 0.75')}".splitlines(True):
                text += line
                log.write_text(text)
                watch.read(line)
                told.append(watch.latest)
        watch.read("predicting case_3\n")
        told.append(watch.latest)
    first, last = "epoch 1 of 2, loss -0.4321, Dice 0.5000, 20.5 s left", "epoch 2 of 2, loss -0.4321, Dice 0.5000"
    last += ", validation follows"
    between = ["in epoch 1", first, "in epoch 2", last]
    assert list(dict.fromkeys(told)) == ["Using torch.compile...", *between, "predicting case_3"]
    assert shown.getvalue().splitlines() == ["warning: read", first, "warning: read", last]


def test_a_training_on_a_terminal_has_one_line_that_is_rewritten(tmp_path: Path) -> None:
    (tmp_path / "debug.json").write_text(json.dumps({"num_epochs": "2"}))
    (tmp_path / "training_log_2026_3_2.txt").write_text(EPOCH.format(0) + END.format("-0.4321", "0.25, 0.75"))
    shown = io.StringIO()
    with TrainingWatch(tmp_path, Console(file=shown, force_terminal=True, width=100)) as watch:
        for line in (EPOCH.format(0) + END.format("-0.4321", "0.25, 0.75")).splitlines(True):
            watch.read(line)
    assert "epoch 1 of 2, loss -0.4321, Dice 0.5000, 20.5 s left" in shown.getvalue()
    assert shown.getvalue().count("\n") == 1
    assert shown.getvalue().endswith("\x1b[1A\x1b[2K"), "it is erased at the end"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_what_is_shown_of_a_step(is_terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=is_terminal)
    steps = StepsInARow(9, console)
    assert type(steps.watch(step("predict", False))) is Watch
    assert type(steps.watch(step("training", False, training=tmp_path))) is TrainingWatch
    # a search has bars of its own on a terminal
    assert type(steps.watch(step("search", False))) is (type(None) if is_terminal else WatchAll)
    monkeypatch.setenv(VARIABLE, VERBOSE)
    assert steps.watch(step("training", False, training=tmp_path)) is None


def test_long_lines_are_not_broken_in_a_log_file(monkeypatch: pytest.MonkeyPatch) -> None:
    console = PlainConsole()
    console.file = io.StringIO()
    StepsInARow(1, console).begin("x" * 300)
    assert console.file.getvalue() == f"Step 1 of 1: {'x' * 300}\n"
