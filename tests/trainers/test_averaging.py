"""Averaged weights: what they are, who uses them, and that a continued training is one that was never stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nnunetv2_slicemamba.trainers import TRAINERS
from nnunetv2_slicemamba.trainers.averaging import TRAINED, WeightAverage
from tests.trainers.short_trainings import RESIDUAL, assert_same, make, train

DECAY = 0.5


@pytest.fixture
def averaged(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], type]:
    """averaged(name): the trainer with averaged weights, where nnU-Net's look-up finds it."""

    def derive(name: str) -> type:
        made = type(f"{name}Averaged", (TRAINERS[name],), {"ema_decay": DECAY})
        monkeypatch.setitem(TRAINERS, made.__name__, made)
        return made

    return derive


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def test_checkpoints_hold_the_average_and_training_goes_on_with_the_trained_weights(
    averaged: Callable[[str], type],
    make_trainer: Callable[..., Any],
    batch_for: Callable[[Any], dict[str, Any]],
    tmp_path: Path,
) -> None:
    name = averaged("SliceMambaTrainer_1epoch").__name__
    trainer = make_trainer(name)
    trainer.average.begin()
    expected = weights(trainer.network)
    for _ in range(3):
        trainer.train_step(batch_for(trainer))
        trained = weights(trainer.network)
        expected = {key: DECAY * value + (1 - DECAY) * trained[key] for key, value in expected.items()}
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    assert_close(weights(trainer.network), trained)

    content = torch.load(tmp_path / "checkpoint.pth", weights_only=False)
    assert_close({key: content["network_weights"][key] for key in expected}, expected)
    assert_close(content["optimizer_state"][TRAINED], trained)

    other = make_trainer(name)
    other.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    # what --val and nnU-Net's predictor see
    assert_close(weights(other.network), expected)
    other.average.begin()
    assert_close(weights(other.network), trained)

    # a trainer without averages can read it
    plain = make_trainer("SliceMambaTrainer_1epoch")
    plain.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    assert_close(weights(plain.network), expected)


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_validation_uses_the_average_and_a_continued_training_repeats_one_that_was_never_stopped(
    averaged: Callable[[str], type], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLICEMAMBA_SEED", "5")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    kind = averaged("SliceMambaSupernetTrainer_5epochs")
    trainer, validated = make(kind, architecture=RESIDUAL), []
    step = trainer.validation_step

    def watched(batch: dict[str, Any]) -> dict[str, Any]:
        validated.append(weights(trainer.network))
        return step(batch)

    monkeypatch.setattr(trainer, "validation_step", watched)
    whole = train(trainer)
    assert_close(weights(trainer.network), {key: whole["network_weights"][key] for key in validated[-1]})
    assert_close(validated[-1], weights(trainer.network))
    assert any(not torch.equal(value, whole["network_weights"][key]) for key, value in validated[0].items())
    assert any(
        not torch.equal(value, whole["network_weights"][key])
        for key, value in whole["optimizer_state"][TRAINED].items()
    )
    train(make(kind, architecture=RESIDUAL), stopped=True)
    assert_same(whole, train(make(kind, architecture=RESIDUAL), continued=True))


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0, float("nan")])
def test_a_decay_that_averages_nothing_is_refused(decay: float) -> None:
    network = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="ema_decay is .*, it must lie between 0 and 1: give 0.999"):
        WeightAverage(network, decay, torch.optim.SGD(network.parameters(), 0.1))
