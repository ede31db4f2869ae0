"""Origin of a non-finite loss: input, weights, or the first block with a non-finite output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_slicemamba.nets.base import SliceMambaBase


class NonFiniteLossError(RuntimeError):
    """Training stopped because the loss was NaN or infinite; the message says where it came from."""


class GuardedLoss(nn.Module):
    """A loss that raises FloatingPointError instead of returning a non-finite value.

    Only used where no gradient scaler protects the weights: reading the loss makes the host wait for the device.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, *args: Any) -> Tensor:
        value = self.loss(*args)
        if not torch.isfinite(value):
            raise FloatingPointError(f"loss {value.item()}")
        return value


@torch.no_grad()
def first_non_finite(network: SliceMambaBase, data: Tensor, forward: Callable[[Tensor], Any]) -> str:
    """Names the first thing on the way of `data` (B, C, *spatial) that is NaN or infinite.

    forward: runs the network, under the trainer's autocast. Looks at the input, the weights, then the output of
    every block of the current path in network order.
    """
    if not torch.isfinite(data).all():
        return "the input batch is not finite; look for NaN or infinite voxels in the preprocessed data"
    for name, parameter in network.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"the weight {name} is not finite"
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if not found and not torch.isfinite(output).all():
                found.append(name)

        return hook

    handles = [block.register_forward_hook(watch(name)) for name, block in network.named_block_positions()]
    try:
        forward(data)
    finally:
        for handle in handles:
            handle.remove()
    if found:
        return f"the first block with a non-finite output is {found[0]}"
    return "every block's output is finite on a second pass: the loss itself or stochastic depth is the origin"
