"""Trainings run nothing that a checkpoint says, and start from no damaged one and from no NaN."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint

from nnunetv2_slicemamba.common.checkpoints import FORCE_SAFE, FORCE_UNSAFE, CheckpointError
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.trainers import TRAINERS as ALL_TRAINERS
from nnunetv2_slicemamba.trainers.safe_loading import NonFiniteWeightsError, SafeLoading
from tests.common.malicious import touching

TRAINERS = ["SliceMambaTrainer_1epoch", "SliceMambaSupernetTrainer_1epoch"]


@pytest.fixture(autouse=True)
def _torch_reads_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither switch of PyTorch's is set before a test, and none that a trainer sets is left."""
    for name in (FORCE_SAFE, FORCE_UNSAFE):
        monkeypatch.setenv(name, "0")


@pytest.fixture
def fold(make_trainer: Callable[..., Any]) -> Callable[[str], tuple[Any, Path]]:
    """fold(name): a trainer whose folder holds its checkpoint_latest.pth."""

    def make(name: str) -> tuple[Any, Path]:
        trainer = make_trainer(name)
        folder = Path(trainer.output_folder)
        folder.mkdir(parents=True, exist_ok=True)
        trainer._best_ema = np.float64(0.25)  # as after every epoch
        trainer.save_checkpoint(str(folder / "checkpoint_latest.pth"))
        return trainer, folder

    return make


def with_code(file: Path, marker: Path) -> None:
    """Adds to a checkpoint what makes the marker when it is unpickled."""
    content = torch.load(file, weights_only=False)
    content["init_args"]["x"] = touching(marker)
    torch.save(content, file)


def with_nan(file: Path) -> None:
    content = torch.load(file, weights_only=False)
    weights = content["network_weights"]
    next(value for value in weights.values() if value.is_floating_point()).view(-1)[0] = torch.nan
    torch.save(content, file)


@pytest.mark.parametrize("name", TRAINERS)
def test_a_continued_training_runs_nothing_that_its_checkpoint_says(
    name: str, fold: Callable[..., Any], make_trainer: Callable[..., Any], tmp_path: Path
) -> None:
    _, folder = fold(name)
    with_code(folder / "checkpoint_latest.pth", tmp_path / "marker")
    with pytest.raises(CheckpointError, match=r"checkpoint_latest\.pth is not read: .*it names posix.system"):
        maybe_load_checkpoint(make_trainer(name), True, False)
    assert not (tmp_path / "marker").exists()


def test_the_log_says_that_nothing_was_run(fold: Callable[..., Any], make_trainer: Callable[..., Any]) -> None:
    _, folder = fold(TRAINERS[0])
    trainer = make_trainer(TRAINERS[0])
    maybe_load_checkpoint(trainer, True, False)
    assert trainer.current_epoch == 1
    assert type(trainer._best_ema) is np.float64
    (log,) = sorted(folder.glob("training_log*.txt"))[-1:]
    assert "checkpoint_latest.pth is whole and was read as data: nothing in it was run" in log.read_text()


@pytest.mark.parametrize("name", TRAINERS)
def test_pretrained_weights_run_nothing_either(
    name: str, fold: Callable[..., Any], make_trainer: Callable[..., Any], tmp_path: Path
) -> None:
    _, folder = fold(name)
    good, bad = tmp_path / "good.pth", tmp_path / "bad.pth"
    for file in (good, bad):
        shutil.copy(folder / "checkpoint_latest.pth", file)
    with_code(bad, tmp_path / "marker")
    maybe_load_checkpoint(make_trainer(name, initialize=False), False, False, str(good))
    with pytest.raises(pickle.UnpicklingError, match="posix.system"):
        maybe_load_checkpoint(make_trainer(name, initialize=False), False, False, str(bad))
    assert not (tmp_path / "marker").exists()


def test_a_user_can_have_pickles_run_and_the_log_says_so(
    fold: Callable[..., Any], make_trainer: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = fold(TRAINERS[0])
    monkeypatch.setenv(FORCE_SAFE, "0")
    with_code(folder / "checkpoint_latest.pth", tmp_path / "marker")
    monkeypatch.setenv(FORCE_UNSAFE, "1")
    maybe_load_checkpoint(make_trainer(TRAINERS[0]), True, False)
    assert (tmp_path / "marker").exists()
    assert os.environ[FORCE_SAFE] == "0"
    (log,) = sorted(folder.glob("training_log*.txt"))[-1:]
    assert f"is unpickled and may run code, as {FORCE_UNSAFE} is set" in log.read_text()


def test_a_damaged_checkpoint_is_refused_with_the_one_to_go_on_from(
    fold: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    _, folder = fold(TRAINERS[0])
    latest, best = folder / "checkpoint_latest.pth", folder / "checkpoint_best.pth"
    shutil.copy(latest, best)
    latest.write_bytes(latest.read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match=r"latest\.pth cannot be read: .*move it away, .* from checkpoint_best"):
        maybe_load_checkpoint(make_trainer(TRAINERS[0]), True, False)
    latest.unlink()
    maybe_load_checkpoint(make_trainer(TRAINERS[0]), True, False)
    best.write_bytes(b"")
    with pytest.raises(CheckpointError, match="is empty"):
        maybe_load_checkpoint(make_trainer(TRAINERS[0]), True, False)


def test_flipped_bytes_of_the_optimiser_are_noticed_too(
    fold: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    _, folder = fold(TRAINERS[0])
    latest = folder / "checkpoint_latest.pth"
    content = torch.load(latest, weights_only=False)
    content["optimizer_state"]["state"] = {0: {"exp_avg": torch.full((500,), 0.123)}}
    torch.save(content, latest)
    changed = latest.read_bytes().replace(torch.full((2,), 0.123).numpy().tobytes(), bytes(8), 1)
    latest.write_bytes(changed)
    with pytest.raises(CheckpointError, match="was changed after it was written"):
        maybe_load_checkpoint(make_trainer(TRAINERS[0]), True, False)


def test_no_training_goes_on_starts_or_predicts_with_nan(
    fold: Callable[..., Any], make_trainer: Callable[..., Any], tmp_path: Path
) -> None:
    _, folder = fold(TRAINERS[0])
    monkey = folder / "checkpoint_latest.pth"
    with_nan(monkey)
    with pytest.raises(CheckpointError, match="hold NaN or infinity, the first is"):
        maybe_load_checkpoint(make_trainer(TRAINERS[0]), True, False)
    shutil.move(monkey, tmp_path / "weights.pth")
    trainer = make_trainer("SliceMambaSupernetTrainer_1epoch")
    with torch.no_grad():
        next(trainer.network.parameters()).fill_(torch.inf)
    with pytest.raises(NonFiniteWeightsError, match="-pretrained_weights may hold them"):
        trainer.on_train_start()
    with pytest.raises(NonFiniteWeightsError, match="continue the training from another checkpoint"):
        trainer.perform_actual_validation()
    assert trainer.dataloader_train is None


def test_loaders_and_validation_run_nothing_that_a_case_says(make_trainer: Callable[..., Any], tmp_path: Path) -> None:
    trainer = make_trainer(TRAINERS[0])
    training, validation = trainer.get_tr_and_val_datasets()
    (name, *_) = training.identifiers
    image, _, _, properties = training.load_case(name)
    assert image.shape[0] == 1
    assert 1 in properties["class_locations"]
    for dataset in (training, validation, pickle.loads(pickle.dumps(training))):  # a loader in a process of its own
        for case in dataset.identifiers:
            file = Path(trainer.preprocessed_dataset_folder) / f"{case}.pkl"
            file.write_bytes(pickle.dumps({"class_locations": touching(tmp_path / "marker")}))
            with pytest.raises(InputError, match=rf"{case}\.pkl is not read: .*it names posix.system.*slicemamba plan"):
                dataset.load_case(case)
    assert not (tmp_path / "marker").exists()


def test_an_array_that_names_code_is_refused(make_trainer: Callable[..., Any], tmp_path: Path) -> None:
    blosc2 = pytest.importorskip("blosc2", minversion="4.14.1")
    trainer = make_trainer(TRAINERS[0])
    training, _ = trainer.get_tr_and_val_datasets()
    (name, *_) = training.identifiers
    operand = blosc2.asarray(np.ones(4), urlpath=str(tmp_path / "operand.b2nd"), mode="w")
    file = Path(trainer.preprocessed_dataset_folder) / f"{name}.b2nd"
    file.unlink()
    (operand + 1).save(urlpath=str(file))
    with pytest.raises(Exception, match=r"LazyArray|lazy|b2o|deserializ"):
        training.load_case(name)


def test_every_trainer_loads_safely() -> None:
    for name, trainer in ALL_TRAINERS.items():
        assert issubclass(trainer, SafeLoading), name
