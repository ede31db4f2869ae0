"""A non-finite loss stops training at once, says where it came from, and never reaches the weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nnunetv2_slicemamba.nets import SliceMambaSupernet, SliceMambaUNet
from nnunetv2_slicemamba.trainers import NonFiniteLossError
from nnunetv2_slicemamba.trainers.finite import GuardedLoss, first_non_finite

SETTINGS: dict[str, Any] = {
    "input_channels": 1,
    "num_classes": 2,
    "n_stages": 2,
    "features_per_stage": [8, 16],
    "strides": [[4, 4], [2, 2]],
    "n_blocks_per_stage": [1, 2],
    "n_blocks_per_stage_decoder": [1, 1],
    "d_state": 4,
    "drop_path_rate": 0.0,
}
BLOCKS = [
    "encoder.stages.0.blocks.0",
    "encoder.stages.1.blocks.0",
    "encoder.stages.1.blocks.1",
    "decoder.stages.0.blocks.0",
    "decoder.stages.1.blocks.0",
]


@torch.no_grad()
def overflow(block: Any) -> None:
    """Lets a block's output be infinite although its weights are finite."""
    block.bss.out_norm.weight.fill_(1e20)
    block.bss.out_proj.weight.fill_(1e30)


def test_a_finite_loss_passes_with_its_gradient() -> None:
    x = torch.tensor([1.0, 3.0], requires_grad=True)
    GuardedLoss(nn.MSELoss())(x, torch.zeros(2)).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 3.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_non_finite_loss_is_raised_instead_of_returned(value: float) -> None:
    with pytest.raises(FloatingPointError, match=f"loss {value}"):
        GuardedLoss(nn.Identity())(torch.tensor(value))


@pytest.mark.parametrize("name", BLOCKS)
def test_the_first_block_that_overflows_is_named(name: str) -> None:
    network = SliceMambaUNet(**SETTINGS)
    overflow(network.get_submodule(name))
    told = first_non_finite(network, torch.randn(1, 1, 32, 32), network)
    assert told == f"the first block with a non-finite output is {name}"


def test_of_several_blocks_the_first_is_named() -> None:
    network = SliceMambaUNet(**SETTINGS)
    for name in (BLOCKS[4], BLOCKS[2], BLOCKS[3]):
        overflow(network.get_submodule(name))
    assert first_non_finite(network, torch.randn(1, 1, 32, 32), network).endswith(BLOCKS[2])


def test_a_block_off_the_path_is_not_blamed() -> None:
    supernet = SliceMambaSupernet(**SETTINGS)
    overflow(supernet.get_submodule(f"{BLOCKS[1]}.3"))
    data = torch.randn(1, 1, 32, 32)
    supernet.set_architecture((0, 2, 0, 0, 0))
    assert "every block's output is finite" in first_non_finite(supernet, data, supernet)
    supernet.set_architecture((0, 3, 0, 0, 0))
    assert first_non_finite(supernet, data, supernet).endswith(f"is {BLOCKS[1]}")


def test_the_input_and_the_weights_are_blamed_before_any_block() -> None:
    network = SliceMambaUNet(**SETTINGS)
    data = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        network.get_parameter(f"{BLOCKS[3]}.norm.weight")[0] = float("nan")
    assert first_non_finite(network, data, network) == f"the weight {BLOCKS[3]}.norm.weight is not finite"
    data[0, 0, 3, 3] = float("inf")
    assert "the input batch is not finite" in first_non_finite(network, data, network)


def test_nothing_is_left_behind_on_the_network() -> None:
    network = SliceMambaUNet(**SETTINGS)
    first_non_finite(network, torch.randn(1, 1, 32, 32), network)
    assert not any(module._forward_hooks for module in network.modules())


def stopped(trainer: Any, batch: dict[str, Any]) -> str:
    """The message with which a step ends; the step must have left iteration and weights alone."""
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    iteration = trainer.iteration
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.train_step(batch)
    assert trainer.iteration == iteration
    assert all(torch.equal(value, before[name]) for name, value in trainer.network.state_dict().items())
    log = "".join(Path(trainer.log_file).read_text().split())
    assert "".join(str(caught.value).split()) in log
    return str(caught.value)


def path_of(trainer: Any, iteration: int) -> str:
    """The path of an iteration, as messages show it."""
    candidates = {0: "2x2", 1: "2x4", 2: "4x2", 3: "4x4"}
    return ", ".join(candidates[index] for index in trainer.draw_path(iteration))


def test_a_poisoned_batch_stops_the_supernets_training_with_iteration_architecture_and_origin(
    make_trainer: Callable[..., Any], batch_for: Callable[[Any], dict[str, Any]]
) -> None:
    trainer = make_trainer("SliceMambaSupernetTrainer_5epochs")
    trainer.current_epoch = 2
    trainer.on_train_epoch_start()
    batch = batch_for(trainer)
    trainer.train_step(batch)
    batch["data"][0, 0, 5, 5] = float("nan")
    message = stopped(trainer, batch)
    assert "iteration 501 (epoch 2)" in message
    assert f"path {path_of(trainer, 501)}: " in message
    assert "the input batch is not finite" in message


def test_an_overflowing_block_stops_the_supernets_training_with_its_name(
    make_trainer: Callable[..., Any], batch_for: Callable[[Any], dict[str, Any]]
) -> None:
    trainer = make_trainer("SliceMambaSupernetTrainer_1epoch")
    for candidate in trainer.supernet.get_submodule(BLOCKS[2]):
        overflow(candidate)
    message = stopped(trainer, batch_for(trainer))
    assert "iteration 0" in message
    assert f"path {path_of(trainer, 0)}: " in message
    assert f"the first block with a non-finite output is {BLOCKS[2]}" in message


def test_the_final_networks_training_stops_with_its_slicing(
    make_trainer: Callable[..., Any], batch_for: Callable[[Any], dict[str, Any]]
) -> None:
    trainer = make_trainer("SliceMambaTrainer_1epoch")
    trainer.bare_network.set_slicing([(2, 4), (4, 2), (4, 4), (2, 2), (1, 3), (2, 2), (4, 4)])
    overflow(trainer.bare_network.get_submodule(BLOCKS[0]))
    message = stopped(trainer, batch_for(trainer))
    assert "slicing 2x4, 4x2, 4x4, 2x2, 1x3, 2x2, 4x4: " in message
    assert BLOCKS[0] in message
