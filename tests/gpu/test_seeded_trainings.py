"""With SLICEMAMBA_SEED trainings on a GPU, augmented there, end with the same checkpoint, stopped in between or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2_slicemamba.augmentation.device_batches import DeviceBatches
from nnunetv2_slicemamba.trainers import SliceMambaSupernetTrainer, SliceMambaTrainer, nnUNetTrainerGPUAugment
from tests.trainers.short_trainings import assert_same, make, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


class AnySlicing(SliceMambaTrainer):
    """Trains the slicing that the network begins with."""

    def _use_slicing_file(self) -> None:
        pass

    def _check_slicing_file(self) -> None:
        pass


TRAINED = (nnUNetTrainerGPUAugment, AnySlicing, SliceMambaSupernetTrainer)


@pytest.fixture
def run(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """run(class, seed=5, processes=2, stopped=False, continued=False): the checkpoint of a short training."""
    monkeypatch.setenv("nnUNet_compile", "false")

    def run_one(trainer: type, seed: int = 5, processes: int = 2, **kind: bool) -> dict[str, Any]:
        monkeypatch.setenv("SLICEMAMBA_SEED", str(seed))
        monkeypatch.setenv("nnUNet_n_proc_DA", str(processes))
        made = make(trainer, "cuda")
        left = train(made, **kind)
        assert isinstance(made.dataloader_train, DeviceBatches)
        return left

    return run_one


@pytest.mark.parametrize("trainer", TRAINED)
def test_two_trainings_are_the_same(trainer: type, run: Callable[..., Any]) -> None:
    one = run(trainer)
    assert_same(one, run(trainer, processes=3))
    assert run(trainer, seed=6)["logging"]["train_losses"] != one["logging"]["train_losses"]


@pytest.mark.parametrize("trainer", TRAINED)
def test_a_continued_training_is_the_one_that_was_never_stopped(trainer: type, run: Callable[..., Any]) -> None:
    whole = run(trainer)
    run(trainer, stopped=True)
    assert_same(whole, run(trainer, continued=True))
