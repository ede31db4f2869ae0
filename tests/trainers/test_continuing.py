"""A training that was stopped and continued is the training that was never stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

EPOCHS, ITERATIONS, STOPPED_AFTER = 4, 3, 2


@pytest.fixture
def make_short(make_trainer: Callable[..., Any]) -> Callable[[str], Any]:
    """A trainer of four epochs with three iterations each."""

    def make(name: str) -> Any:
        trainer = make_trainer(name, initialize=False)
        trainer.num_epochs, trainer.num_iterations_per_epoch = EPOCHS, ITERATIONS
        trainer.initialize()
        if "Supernet" not in name:
            trainer.bare_network.set_slicing([(2, 4)] * 7)
        return trainer

    return make


def train(trainer: Any, epochs: range, batches: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Loss, rate and architecture of every iteration. Stochastic depth draws from PyTorch's generator, which belongs to
    the process and not to the training: it is seeded for every iteration."""
    seen = []
    trainer.network.train()
    for epoch in epochs:
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        for i in range(ITERATIONS):
            iteration = epoch * ITERATIONS + i
            torch.manual_seed(iteration)
            loss = float(trainer.train_step(batches[iteration])["loss"])
            rate = trainer.optimizer.param_groups[0]["lr"]
            seen.append((loss, rate, getattr(trainer.bare_network, "get_architecture", lambda: None)()))
    return seen


@pytest.mark.parametrize("name", ["SliceMambaTrainer_1epoch", "SliceMambaSupernetTrainer_1epoch"])
def test_a_continued_training_repeats_losses_rates_paths_and_weights_exactly(
    name: str, make_short: Callable[[str], Any], batch_for: Callable[[Any], dict[str, Any]], tmp_path: Path
) -> None:
    whole, stopped, continued = (make_short(name) for _ in range(3))
    batches = []
    for iteration in range(EPOCHS * ITERATIONS):
        batch = batch_for(whole)
        generator = torch.Generator().manual_seed(iteration)
        batches.append({**batch, "data": torch.randn(batch["data"].shape, generator=generator)})
    expected = train(whole, range(EPOCHS), batches)

    first = train(stopped, range(STOPPED_AFTER), batches)
    stopped.save_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    continued.load_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    assert continued.current_epoch == STOPPED_AFTER
    rest = train(continued, range(continued.current_epoch, EPOCHS), batches)

    assert first + rest == expected
    assert len({rate for _, rate, _ in expected}) > ITERATIONS  # the schedule moves within epochs
    if "Supernet" in name:
        assert len({path for *_, path in expected}) > ITERATIONS
    for key, value in whole.bare_network.state_dict().items():
        assert torch.equal(value, continued.bare_network.state_dict()[key]), key
    states = [trainer.optimizer.state_dict()["state"] for trainer in (whole, continued)]
    assert states[0].keys() == states[1].keys()
    for key, state in states[0].items():
        assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(states[1][key][n])) for n, v in state.items())
