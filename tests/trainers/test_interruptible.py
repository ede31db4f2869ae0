"""A signal ends a training without losing a finished epoch; two trainings share no folder, and two plans no name."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2_slicemamba.common.folder_lock import FolderInUseError
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.other_processes import host_mark
from nnunetv2_slicemamba.trainers import TRAINERS
from tests.trainers.short_trainings import DISKS, assert_same, make, train

PLANS = "nnUNetSliceMambaSPlans"


@pytest.fixture
def made(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """made(name): a seeded trainer of three epochs that writes no checkpoint_latest.pth by itself."""
    monkeypatch.setenv("SLICEMAMBA_SEED", "5")
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")

    def make_one(name: str) -> Any:
        trainer = make(TRAINERS[name])
        trainer.save_every = 50
        return trainer

    return make_one


def ask_in(trainer: Any, epoch: int, step: str, number: int) -> None:
    """Sends a signal to this process in the first `step` of an epoch."""
    original, asked = getattr(trainer, step), []

    def then_ask(batch: dict[str, Any]) -> Any:
        if trainer.current_epoch == epoch and not asked:
            asked.append(number)
            os.kill(os.getpid(), number)
        return original(batch)

    setattr(trainer, step, then_ask)


@pytest.mark.parametrize(
    ("name", "step", "number"),
    [
        ("nnUNetTrainerGPUAugment_5epochs", "train_step", signal.SIGTERM),
        pytest.param("SliceMambaSupernetTrainer_5epochs", "validation_step", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_training_that_a_signal_ended_goes_on_as_the_one_that_was_never_stopped(
    name: str, step: str, number: int, made: Callable[[str], Any]
) -> None:
    whole = train(made(name))
    trainer = made(name)
    folder = Path(trainer.output_folder)
    for file in folder.glob("checkpoint*"):
        file.unlink()
    ask_in(trainer, 2, step, number)
    with pytest.raises(SystemExit) as ended:
        trainer.run_training()
    assert ended.value.code == 128 + number
    assert not any(batches.workers.processes for batches in (trainer.dataloader_train, trainer.dataloader_val))
    assert sorted(file.name for file in folder.glob(".*")) == []
    checkpoint = torch.load(folder / "checkpoint_latest.pth", weights_only=False)
    assert checkpoint["current_epoch"] == 2
    assert len(checkpoint["logging"]["train_losses"]) == len(checkpoint["logging"]["lrs"]) == 2
    assert any("stopped by SIG" in log.read_text() for log in folder.glob("training_log*"))
    assert_same(whole, train(made(name), continued=True))


def test_a_signal_before_an_epoch_is_finished_ends_the_training_and_writes_nothing(
    made: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    for hook in ("on_train_start", "on_epoch_start"):
        trainer = made("nnUNetTrainerGPUAugment_5epochs")
        original = getattr(trainer, hook)
        monkeypatch.setattr(trainer, hook, lambda run=original: (os.kill(os.getpid(), signal.SIGTERM), run()))
        with pytest.raises(SystemExit) as ended:
            trainer.run_training()
        assert ended.value.code == 143
        assert list(Path(trainer.output_folder).glob("checkpoint*")) == []


def test_nnunets_loaders_end_with_a_training_that_was_stopped(
    make_trainer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their threads would take the end of the processes for a fault, and print it behind the last line of the log."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    trainer, before = make_trainer("SliceMambaTrainer_5epochs"), set(threading.enumerate())
    ask_in(trainer, 0, "train_step", signal.SIGTERM)
    with pytest.raises(SystemExit):
        trainer.run_training()
    assert set(threading.enumerate()) <= before


def test_a_signal_after_the_last_step_leaves_a_finished_training(
    made: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    trainer = made("nnUNetTrainerGPUAugment_5epochs")
    trainer.num_epochs = trainer.num_iterations_per_epoch = 1
    finish = trainer.on_train_end
    trainer.on_train_end = lambda: (os.kill(os.getpid(), signal.SIGTERM), finish())
    with pytest.raises(SystemExit) as ended:
        trainer.run_training()
    assert ended.value.code == 143
    checkpoint = torch.load(Path(trainer.output_folder) / "checkpoint_final.pth", weights_only=False)
    assert checkpoint["current_epoch"] == 1


def test_the_latest_checkpoint_knows_that_its_epoch_was_the_best(make_trainer: Callable[..., Any]) -> None:
    trainer = make_trainer("SliceMambaTrainer_5epochs")
    trainer.save_every = 1
    for epoch, dice in enumerate((0.5, 0.9)):
        for key, value in (("epoch_start_timestamps", 0.0), ("train_losses", 1.0), ("val_losses", 1.0), ("lrs", 0.1)):
            trainer.logger.log(key, value, epoch)
        trainer.logger.log("mean_fg_dice", dice, epoch)
        trainer.logger.log("dice_per_class_or_region", [dice], epoch)
        trainer.on_epoch_end()
        latest, best = (
            torch.load(Path(trainer.output_folder) / f"checkpoint_{name}.pth", weights_only=False)
            for name in ("latest", "best")
        )
        assert latest["current_epoch"] == best["current_epoch"] == epoch + 1
        assert latest["_best_ema"] == best["_best_ema"] is not None


def test_a_folder_that_another_process_works_in_is_neither_trained_nor_validated(
    make_trainer: Callable[..., Any],
) -> None:
    trainer = make_trainer("SliceMambaTrainer_1epoch")
    code = (
        "import sys, time; from pathlib import Path; from nnunetv2_slicemamba.common.folder_lock import in_use\n"
        "with in_use(Path(sys.argv[1])): print('has it', flush=True); time.sleep(60)"
    )
    call = [sys.executable, "-c", code, str(trainer.output_folder)]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        for work in (trainer.run_training, trainer.perform_actual_validation):
            with pytest.raises(FolderInUseError, match=f"in use by process {holder.pid}"):
                work()
        holder.kill()


def test_what_a_killed_training_left_half_written_is_removed_by_the_next(
    make_trainer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer("SliceMambaTrainer_1epoch")
    folder = Path(trainer.output_folder)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = (f".checkpoint_best.{host_mark()}-{ended.pid}.part.pth", "checkpoint_final.pth.tmp")
    folder.mkdir(parents=True, exist_ok=True)
    for name in left:
        (folder / name).write_bytes(b"half")
    monkeypatch.setattr(trainer, "train_step", lambda batch: pytest.fail("far enough"))
    with pytest.raises(pytest.fail.Exception, match="far enough"):
        trainer.run_training()
    assert not any((folder / name).exists() for name in left)


@pytest.mark.parametrize("name", ["nnUNetTrainerGPUAugment_5epochs", "SliceMambaSupernetTrainer_5epochs"])
def test_a_finished_training_is_neither_trained_over_nor_validated_over(
    name: str, made: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the options of the new training are; continuing the finished one stays possible."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    trainer = made(name)
    final = Path(trainer.output_folder) / "checkpoint_final.pth"
    trainer.current_epoch = trainer.num_epochs
    trainer.on_train_end()
    before = final.read_bytes()
    for disabled in (False, True):
        again = made(name)
        again.disable_checkpointing = disabled
        with pytest.raises(InputError, match=rf"{final} is a finished training.*--val,.*--c, or move or delete"):
            again.run_training()
    continued = made(name)
    continued.load_checkpoint(str(final))
    continued.run_training()
    # a search knows its supernet by the hash of the file
    assert final.read_bytes() == before


def test_the_checkpoints_of_an_unfinished_training_survive_a_new_one(
    made: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they were until the new one has a checkpoint of its own, then in a folder beside it."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    folder = Path(made("nnUNetTrainerGPUAugment_5epochs").output_folder)
    for number, disabled in enumerate((False, True), 1):
        earlier = {f"checkpoint_{name}.pth": f"{name} of training {number}".encode() for name in ("latest", "best")}
        for name, content in earlier.items():
            folder.joinpath(name).write_bytes(content)
        failing, trainer = made("nnUNetTrainerGPUAugment_5epochs"), made("nnUNetTrainerGPUAugment_5epochs")
        failing.train_step = lambda batch: 1 / 0
        with pytest.raises(ZeroDivisionError):
            failing.run_training()
        assert all(folder.joinpath(name).read_bytes() == content for name, content in earlier.items())
        trainer.num_epochs = trainer.num_iterations_per_epoch = 1
        trainer.disable_checkpointing = disabled
        trainer.run_training()
        aside = folder / f"earlier_training_{number}"
        assert {file.name: file.read_bytes() for file in aside.iterdir()} == earlier
        assert folder.joinpath("checkpoint_final.pth").exists() is not disabled
        for left in folder.glob("checkpoint_*"):
            left.unlink()


@pytest.mark.parametrize(("change", "refused"), [(None, False), ("MyPlans", False), ("batch_size", True)])
def test_plans_from_a_file_of_another_name_are_not_trained_with(
    change: str | None,
    refused: bool,
    make_trainer: Callable[..., Any],
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Unless they are the very plans that the other file has, too."""
    folder = workspace / "nnUNet_preprocessed" / DISKS
    trainer = make_trainer("SliceMambaTrainer_1epoch", initialize=False)
    if change is not None:
        shutil.copy(folder / f"{PLANS}.json", folder / "MyPlans.json")
    if refused:
        trainer.plans_manager.plans["configurations"]["2d"]["batch_size"] += 1
        (folder / "MyPlans.json").write_text(json.dumps(trainer.plans_manager.plans))
        with pytest.raises(InputError, match=rf"MyPlans.json is named 'MyPlans', but .* '{PLANS}'.*change it"):
            trainer.run_training()
        assert not Path(trainer.output_folder, "plans.json").exists()
    else:
        monkeypatch.setattr(trainer, "train_step", lambda batch: pytest.fail("it trains"))
        with pytest.raises(pytest.fail.Exception, match="it trains"):
            trainer.run_training()
