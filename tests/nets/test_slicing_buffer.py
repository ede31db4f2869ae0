"""The slicing is part of the weights: whatever loads a network's weights loads its slicing."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nnunetv2_slicemamba.nets import SliceMambaUNet

SLICINGS = [[(2, 2), (2, 4), (4, 2), (4, 4), (2, 2), (4, 2), (2, 4), (4, 4)], [(4, 4), (1, 3)] * 4]


@pytest.fixture
def folds(settings: Callable[..., dict[str, Any]]) -> list[SliceMambaUNet]:
    """Two networks of one configuration with different weights and different slicing."""
    return [sensitive(SliceMambaUNet(**settings(), slicing=slicing)) for slicing in SLICINGS]


@torch.no_grad()
def sensitive(network: SliceMambaUNet) -> SliceMambaUNet:
    """With large weights: as drawn, a network hardly depends on its slicing."""
    for block in network.block_positions():
        for parameter in (block.bss.in_proj.weight, block.bss.x_proj_weight, block.bss.out_proj.weight):
            parameter.mul_(8)
    return network.eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(1, 2, 32, 48)


@torch.no_grad()
def test_two_folds_loaded_one_after_another_into_one_network_each_give_their_own_outputs(
    folds: list[SliceMambaUNet], x: Tensor, settings: Callable[..., dict[str, Any]]
) -> None:
    one = SliceMambaUNet(**settings()).eval()
    for fold in (*folds, *folds):
        one.load_state_dict(fold.state_dict())
        assert torch.equal(one(x), fold(x))
        assert one.get_slicing() == fold.get_slicing()


@torch.no_grad()
def test_weights_with_another_slicing_give_other_outputs(folds: list[SliceMambaUNet], x: Tensor) -> None:
    right = folds[0](x)
    folds[0].set_slicing(SLICINGS[1])
    assert (folds[0](x) - right).norm() > 0.01 * right.norm()


@torch.no_grad()
def test_a_compiled_network_follows_the_slicing_of_the_weights_it_loads(
    x: Tensor, settings: Callable[..., dict[str, Any]]
) -> None:
    # as small as can be: tracing takes seconds
    tiny = {"n_stages": 1, "features_per_stage": [8], "strides": [[4, 4]]}
    blocks = {"n_blocks_per_stage": [1], "n_blocks_per_stage_decoder": [1]}
    folds = [sensitive(SliceMambaUNet(**settings(**tiny, **blocks), slicing=slicing[-2:])) for slicing in SLICINGS]
    compiled = torch.compile(SliceMambaUNet(**settings(**tiny, **blocks)).eval(), backend="eager")
    compiled(x)
    for fold in folds:
        # as nnU-Net's predictor does
        compiled._orig_mod.load_state_dict(fold.state_dict())
        torch.testing.assert_close(compiled(x), fold(x), rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_keeps_its_slicing_and_follows_the_weights_that_it_loads_itself(
    duplicate: Callable[[SliceMambaUNet], SliceMambaUNet], folds: list[SliceMambaUNet], x: Tensor
) -> None:
    original, other = folds
    before = original(x)
    copied = duplicate(original)
    assert torch.equal(copied(x), before)
    copied.load_state_dict(other.state_dict())
    assert torch.equal(copied(x), other(x))
    assert torch.equal(original(x), before)


def test_the_slicing_is_a_uint8_tensor_among_the_weights(folds: list[SliceMambaUNet]) -> None:
    weights = folds[0].state_dict()
    assert weights["slicing"].dtype == torch.uint8
    assert weights["slicing"].tolist() == [list(thickness) for thickness in SLICINGS[0]]
    # nnU-Net's load_pretrained_weights reads the shape of every entry
    assert all(isinstance(value, Tensor) for value in weights.values())


def test_a_network_without_a_given_slicing_has_thickness_2_everywhere(
    settings: Callable[..., dict[str, Any]],
) -> None:
    assert SliceMambaUNet(**settings(3)).get_slicing() == ((2, 2, 2),) * 8


@pytest.mark.parametrize(
    ("slicing", "message"),
    [
        ([(2, 2)] * 7, "has 7 blocks, this network has 8"),
        ([(2, 2)] * 7 + [(2, 2, 2)], "has 3 entries for 2 spatial axes"),
        ([(2, 2)] * 7 + [(2, 0)], r"thickness \(2, 0\) is out of range"),
        ([(2, 2)] * 7 + [(256, 2)], r"thickness \(256, 2\) is out of range"),
        ([(2, 2)] * 7 + [(-1, 2)], r"thickness \(-1, 2\) is out of range"),
    ],
)
def test_a_slicing_that_does_not_fit_is_refused_and_changes_nothing(
    slicing: list[tuple[int, ...]], message: str, folds: list[SliceMambaUNet], x: Tensor
) -> None:
    network = folds[0]
    with pytest.raises(ValueError, match=message):
        network.set_slicing(slicing)
    assert network.get_slicing() == tuple(SLICINGS[0])
    assert network.state_dict()["slicing"].tolist() == [list(thickness) for thickness in SLICINGS[0]]


def test_a_thickness_of_zero_in_loaded_weights_is_refused(folds: list[SliceMambaUNet]) -> None:
    weights = folds[0].state_dict()
    weights["slicing"] = torch.zeros_like(weights["slicing"])
    with pytest.raises(ValueError, match="out of range"):
        folds[1].load_state_dict(weights)
