"""Skipped steps and clipped gradients are told once per epoch, and cost no step a wait for the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from nnunetv2_slicemamba.trainers.gradient_watch import WatchfulScaler


def step(scaler: WatchfulScaler, weight: nn.Parameter, optimizer: torch.optim.Optimizer, gradient: float) -> None:
    optimizer.zero_grad()
    scaler.scale((weight * gradient).sum()).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_([weight], 12)
    scaler.step(optimizer)
    scaler.update()


def test_a_report_tells_how_many_steps_were_skipped_and_the_largest_norm() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), WatchfulScaler("cpu")
    for gradient in (2.0, float("inf"), 30.0, float("nan"), 40.0):
        step(scaler, weight, optimizer, gradient)
    # the scaler works as PyTorch's: three steps were made, two of them clipped
    assert weight.item() == pytest.approx(-2 - 12 - 12, rel=1e-4)
    assert scaler.report() == (
        "2 of 5 steps were skipped, since their gradients were not finite; "
        "2 gradients were clipped to norm 12, the largest had 40.0"
    )
    step(scaler, weight, optimizer, 3.0)
    assert scaler.report() is None


def test_the_trainer_says_it_when_an_epoch_ends(
    make_trainer: Callable[..., Any], batch_for: Callable[[Any], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer("SliceMambaTrainer_1epoch")
    trainer.grad_scaler = WatchfulScaler("cpu")  # a GPU's trainings have one
    said: list[str] = []
    monkeypatch.setattr(trainer, "print_to_log_file", lambda *text, **options: said.append(" ".join(map(str, text))))
    trainer.on_train_epoch_start()
    results = [trainer.train_step(batch_for(trainer))]
    trainer.on_train_epoch_end(results)
    assert not any("steps were skipped" in line for line in said)
    for parameter in trainer.network.parameters():
        parameter.register_hook(lambda gradient: gradient * float("inf"))
    trainer.on_train_epoch_start()
    results = [trainer.train_step(batch_for(trainer)) for _ in range(2)]
    trainer.on_train_epoch_end(results)
    assert "2 of 2 steps were skipped, since their gradients were not finite" in said
