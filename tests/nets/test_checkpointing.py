"""Activation checkpointing changes memory, and neither outputs nor gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nnunetv2_slicemamba.nets import SliceMambaSupernet, SliceMambaUNet


def step(network: torch.nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor | None], int]:
    """Output, gradients, and the bytes kept for the backward pass, parameters aside."""
    parameters = {p.data_ptr() for p in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in parameters:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    network.zero_grad()
    torch.manual_seed(1)  # stochastic depth draws the same again when a block is computed a second time
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(x)
    (output**2).sum().backward()
    return output.detach(), [p.grad for p in network.parameters()], sum(kept.values())


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("kind", [SliceMambaUNet, SliceMambaSupernet])
def test_outputs_and_gradients_are_the_same_with_a_fraction_of_the_memory(
    kind: type, n_dims: int, settings: Callable[..., dict[str, Any]]
) -> None:
    plain, saving = (kind(**settings(n_dims, drop_path_rate=0.5, activation_checkpointing=on)) for on in (False, True))
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(2, 2, *(64, 48, 32)[:n_dims])
    expected, gradients, all_kept = step(plain, x)
    output, found, kept = step(saving, x)
    assert torch.equal(output, expected)
    for got, wanted in zip(found, gradients, strict=True):
        assert (got is None) == (wanted is None)
        assert got is None or torch.equal(got, wanted)
    assert kept < all_kept / 3


def test_a_path_taken_from_a_checkpointed_supernet_is_checkpointed(settings: Callable[..., dict[str, Any]]) -> None:
    supernet = SliceMambaSupernet(**settings(activation_checkpointing=True))
    network = supernet.extract([0] * supernet.n_blocks)
    assert all(block.checkpointed for block in network.block_positions())
