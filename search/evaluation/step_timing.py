"""Time of a module's training pass on a device: forward and backward, as trainings run it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from nnunetv2_slicemamba.nets.cuda_graphs import Outputs, TrainingGraph, as_list

WARM_UP, REPEATS = 3, 10


def milliseconds(module: nn.Module, call: Callable[[Tensor], Outputs], x: Tensor, device: torch.device) -> float:
    """Median milliseconds of the forward and backward pass of `call`, the module's forward pass, over x.

    On a GPU as a CUDA graph under autocast, which is how networks are trained; without one where it cannot be recorded.
    """
    if device.type != "cuda":
        return _timed(lambda: _pass(module, call, x), device)
    with torch.autocast("cuda"):
        try:
            graph = TrainingGraph(module, call, (x,))
        except RuntimeError:
            return _timed(lambda: _pass(module, call, x), device)

    def replay() -> None:
        graph.forward_graph.replay()
        graph.backward_graph.replay()

    return _timed(replay, device)


def _pass(module: nn.Module, call: Callable[[Tensor], Outputs], x: Tensor) -> None:
    made = as_list(call(x))
    wanted = [p for p in (*module.parameters(), x) if p.requires_grad]
    torch.autograd.grad(made, wanted, [torch.ones_like(one) for one in made], allow_unused=True)


def _timed(run: Callable[[], None], device: torch.device) -> float:
    for _ in range(WARM_UP):
        run()
    return statistics.median(_time_once(run, device) for _ in range(REPEATS))


def _time_once(run: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))
    started = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - started)
