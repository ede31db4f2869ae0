"""Several processes of one training: the average of their gradients, of the parameters that were used alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn

from nnunetv2_slicemamba.trainers.gradient_watch import WatchfulScaler

UNIT = 16  # bytes that a GPU reads at once


class Replica(nn.Module):
    """One process's copy of a network, in the place of DistributedDataParallel's wrapper.

    That one waits for the gradients of all parameters, or looks in every iteration for those that were not used. A
    supernet's path is the same in all processes, so that nothing needs to be looked for: AveragingScaler averages the
    gradients that there are.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return self.module(*arguments, **options)


class AveragingScaler(WatchfulScaler):
    """A gradient scaler that averages the gradients over all processes before it unscales them.

    What is infinite in one process is so in all of them then, and all skip the same steps.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__("cuda")
        self.averaged = list(parameters)

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        average_gradients(self.averaged)
        super().unscale_(optimizer)


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces the gradients of all processes by their averages; each must have those of the same parameters.

    They travel together, one message for every type of number.
    """
    by_type: dict[torch.dtype, list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_type.setdefault(parameter.grad.dtype, []).append(parameter)
    for dtype, several in by_type.items():
        # those of whole units first, so that all of them begin at one in memory, as kernels of optimisers like it
        several.sort(key=lambda parameter: parameter.numel() * dtype.itemsize % UNIT != 0)
        gradients = [as_dense(parameter.grad) for parameter in several if parameter.grad is not None]
        # in the order of memory, whatever that of the axes
        together = torch.cat([gradient.as_strided((gradient.numel(),), (1,)) for gradient in gradients])
        distributed.all_reduce(together)
        together /= distributed.get_world_size()
        start = 0
        for parameter, gradient in zip(several, gradients, strict=True):
            parameter.grad = together.as_strided(gradient.shape, gradient.stride(), start)
            start += gradient.numel()


def as_dense(x: Tensor) -> Tensor:
    """The tensor itself if its elements fill a range of memory, else a copy of which that is true."""
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1 and stride != expected:
            return x.contiguous()
        expected *= size
    return x
