"""Two folds trained at once, one of them killed and continued, end as two folds trained in a row."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.run.run_training import run_training_entry
from rich.console import Console

from nnunetv2_slicemamba.common.commands import CommandError
from nnunetv2_slicemamba.common.folder_lock import LOCK_FILE
from nnunetv2_slicemamba.pipeline import fold_steps
from nnunetv2_slicemamba.pipeline.at_once import only_run, run_at_once
from nnunetv2_slicemamba.pipeline.fold_steps import RunSettings, draw_split
from nnunetv2_slicemamba.pipeline.graph import graph_of, run_folder, write_run
from nnunetv2_slicemamba.pipeline.in_a_row import StepsInARow, run_fold
from nnunetv2_slicemamba.pipeline.places import places_without_gpu
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder, SupernetFolder
from nnunetv2_slicemamba.planning.selection import Selection, select
from nnunetv2_slicemamba.search.choosing.set_slicing import set_slicing
from tests.cli.commands import called
from tests.pipeline.test_at_once import wait_for
from tests.trainers.short_trainings import assert_same

PLANS, SUPERNET, SHORT = "nnUNetSliceMambaSPlans", "SliceMambaSupernetTrainer_1epoch", "ShortSliceMambaTrainer"
SETTINGS = RunSettings(SHORT, SUPERNET, "cpu")


def silent() -> Console:
    return Console(file=io.StringIO(), width=200)


def with_slicings(results: Path, monkeypatch: pytest.MonkeyPatch) -> list[Selection]:
    """Two folds whose supernets count as trained, with a slicing set in each."""
    results.mkdir()
    monkeypatch.setenv("nnUNet_results", str(results))
    selections = [select("901", "2d", fold, PLANS) for fold in ("0", "1")]
    for selection, slicing in zip(selections, ("2x4", "4x2"), strict=True):
        supernet = SupernetFolder(selection, SUPERNET)
        supernet.summary.parent.mkdir(parents=True)
        supernet.checkpoint.touch()
        summary = {"metric_per_case": [], "mean": {}, "foreground_mean": {"Dice": 0.5}}
        supernet.summary.write_text(json.dumps(summary))
        file, _ = set_slicing(supernet, slicing)
        supernet.search.mkdir()
        file.rename(supernet.slicing_file)
    return selections


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Steps in a row train in this process, which has imported all that they need, with the threads that they have."""

    def train(name: str, arguments: Sequence[str], console: Console, variables: Mapping[str, str], **_: Any) -> None:
        assert name == "nnUNetv2_train"
        with monkeypatch.context() as patch:
            for variable, value in variables.items():
                patch.setenv(variable, value)
            patch.setattr(sys, "argv", [name, *arguments])
            run_training_entry()

    threads = torch.get_num_threads()
    # PyTorch takes it once in a process
    monkeypatch.setattr(torch, "set_num_interop_threads", lambda number: None)
    monkeypatch.setattr(fold_steps, "run_command", train)
    yield
    torch.set_num_threads(threads)


def kill_training(folder: FoldFolder) -> None:
    """Kills a fold's training once it has written a checkpoint."""
    wait_for(lambda: folder.is_in_training or folder.is_trained, 400)  # its start is slow on a busy machine
    os.kill(json.loads((folder.path / LOCK_FILE).read_text())["process"], signal.SIGKILL)


def test_two_folds_at_once_one_killed_and_continued_equal_two_in_a_row(
    workspace: Path, tmp_path: Path, in_this_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", str(Path(__file__).parent / "short_trainers"))
    monkeypatch.setenv("SLICEMAMBA_SEED", "3")
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    selections = with_slicings(tmp_path / "at_once", monkeypatch)
    draw_split(SupernetFolder(selections[0], SUPERNET))
    finals = [FoldFolder(selection, SHORT) for selection in selections]
    folder, steps = run_folder(selections, SETTINGS), graph_of(selections, SETTINGS)
    with only_run(folder):
        said = {"command": "slicemamba run again", "process": os.getpid(), "host": "here", "started": "now"}
        write_run(folder, selections, SETTINGS, **said)
        killer = threading.Thread(target=kill_training, args=(finals[0],))
        killer.start()
        with pytest.raises(CommandError, match=r"fold 0, training: .*was ended by SIGKILL"):
            run_at_once(steps, places_without_gpu(2), folder, silent())
        killer.join()
    assert [final.is_trained for final in finals] == [False, True]

    ended = called("status", "-d", "901")
    assert ended.code == 0, ended.err
    rows = {row.split("│")[1].strip(): row.split("│") for row in ended.out.splitlines() if "│" in row}
    assert [rows[name][2].strip() for name in ("fold 0, search", "fold 0, training", "fold 1, training")] == [
        "finished",
        "failed",
        "finished",
    ]
    assert rows["fold 1, training"][5].strip() == "4/4"
    assert "fold 0, training: 'nnUNetv2_train Dataset901_Disks 2d 0" in ended.out
    assert "No process runs it. To go on: slicemamba run again" in ended.out

    trained = finals[1].checkpoint.stat().st_mtime_ns
    with only_run(folder):
        run_at_once(steps, places_without_gpu(2), folder, silent())
    assert finals[1].checkpoint.stat().st_mtime_ns == trained
    logs = sorted((folder.path / "fold_0_training").glob("*_log.out"), key=lambda file: file.stat().st_mtime)
    assert len(logs) == 2
    assert " --c" in logs[1].read_text()

    made = [final.checkpoint for final in finals]
    for selection, checkpoint in zip(with_slicings(tmp_path / "row", monkeypatch), made, strict=True):
        run_fold(selection, SETTINGS, StepsInARow(2, silent()))
        files = (checkpoint, FoldFolder(selection, SHORT).checkpoint)
        assert files[0] != files[1]
        assert_same(*(torch.load(file, weights_only=False) for file in files))
