"""Loss and network agree on their resolutions, for any number of stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

# nnU-Net's strides for one, two and four stages of ours
POOLING = {n: [[1, 1], *([[2, 2]] * (n + 1))] for n in (1, 2, 4)}
EXPECTED = {
    1: [[1.0, 1.0]],
    2: [[1.0, 1.0], [1 / 4, 1 / 4]],
    4: [[1.0, 1.0], [1 / 4, 1 / 4], [1 / 8, 1 / 8], [1 / 16, 1 / 16]],
}


@pytest.mark.parametrize("stages", [1, 2, 4])
@pytest.mark.parametrize("name", ["SliceMambaTrainer_1epoch", "SliceMambaSupernetTrainer_1epoch"])
def test_scales_are_the_networks_and_the_loss_is_finite(
    name: str, stages: int, make_trainer: Callable[..., Any], batch_for: Callable[[Any], dict[str, Any]]
) -> None:
    trainer = make_trainer(name, pooling=POOLING[stages])
    assert trainer._get_deep_supervision_scales() == EXPECTED[stages] == trainer.bare_network.output_scales
    check_step(trainer, batch_for(trainer))


@pytest.mark.parametrize("stages", [1, 2, 4])
@pytest.mark.parametrize("name", ["SliceMambaTrainer_1epoch", "SliceMambaSupernetTrainer_1epoch"])
def test_a_hybrid_is_also_supervised_at_half_resolution(
    name: str, stages: int, make_trainer: Callable[..., Any], batch_for: Callable[[Any], dict[str, Any]]
) -> None:
    trainer = make_trainer(name, pooling=POOLING[stages], hybrid=True)
    scales = trainer._get_deep_supervision_scales()
    assert scales == [[1.0, 1.0], [1 / 2, 1 / 2], *EXPECTED[stages][1:]] == trainer.bare_network.output_scales
    kernel = trainer.bare_network.encoder.stem.stages[0].convs[0].conv.weight
    before = kernel.detach().clone()
    check_step(trainer, batch_for(trainer))
    assert not torch.equal(kernel, before)


def check_step(trainer: Any, batch: dict[str, Any]) -> None:
    """The loss weighs full resolution most, has a target for every output, and a step is finite."""
    weights = np.array(trainer.loss.loss.weight_factors)
    assert np.isfinite(weights).all()
    assert weights.sum() == pytest.approx(1)
    assert weights[0] == weights.max()

    outputs = trainer.network(batch["data"])
    assert [o.shape[2:] for o in outputs] == [t.shape[2:] for t in batch["target"]]
    assert np.isfinite(trainer.train_step(batch)["loss"])


def test_without_deep_supervision_there_is_one_output_and_one_target(
    make_trainer: Callable[..., Any], batch_for: Callable[[Any], dict[str, Any]]
) -> None:
    trainer = make_trainer("SliceMambaTrainerNoDeepSupervision")
    assert trainer._get_deep_supervision_scales() is None
    batch = batch_for(trainer)
    assert isinstance(batch["target"], torch.Tensor)
    assert trainer.network(batch["data"]).shape == (2, 2, 32, 40)
    assert np.isfinite(trainer.train_step(batch)["loss"])


def test_nnunet_can_switch_it_off_for_validation(make_trainer: Callable[..., Any]) -> None:
    trainer = make_trainer("SliceMambaSupernetTrainer_1epoch")
    trainer.set_deep_supervision_enabled(False)
    assert trainer.network(torch.zeros(1, 1, 32, 40)).shape == (1, 2, 32, 40)
    trainer.set_deep_supervision_enabled(True)
    assert len(trainer.network(torch.zeros(1, 1, 32, 40))) == 2
