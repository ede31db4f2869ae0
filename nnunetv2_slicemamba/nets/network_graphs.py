"""CUDA graphs of one network, for inference and training, and of the blocks that take turns at one position."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_slicemamba.common.library_errors import first_line
from nnunetv2_slicemamba.nets.cuda_graphs import (
    AutocastState,
    GraphMemory,
    Outputs,
    TrainingGraph,
    hooks_of,
    is_roomy,
    recording,
    side_stream,
    switched_off,
)

log = logging.getLogger(__name__)


class NetworkGraphs:
    """CUDA graphs of one network: of inference, made by themselves, and of training, made by `record_training`.

    Inference: a call with gradients disabled, in eval mode, on a GPU, is recorded when its shape comes for the third
    time; the `KEPT` latest are kept, enough for the folds of an ensemble, which come in turns, each with its slicing.
    A graph is used only while autocast, `state` and the addresses of the network's tensors are what they were.
    Results are copies, so that all graphs can use the same memory. A copy of a network starts without graphs.
    """

    KEPT = 8
    EAGER_CALLS = 2
    COUNTED = 64  # shapes and states whose calls are counted

    def __init__(self) -> None:
        self.inference = True  # training switches it off where the memory is short
        self.training: TrainingGraph | None = None
        self.training_state: Any = None
        self.seen: dict[Any, int] = {}
        self.made: dict[Any, tuple[torch.cuda.CUDAGraph, Tensor, Outputs]] = {}
        self.pool: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def drop(self) -> None:
        """Forgets every graph, and the memory that it holds."""
        self.training = self.training_state = None
        self.seen, self.made, self.pool = {}, {}, None

    def record_training(self, network: nn.Module, call: Callable[[Tensor], Outputs], x: Tensor, state: Any) -> None:
        """Records the training pass on tensors like x, which replay from now on. RuntimeError if it cannot."""
        self.training = None
        self.training, self.training_state = TrainingGraph(network, call, (x,)), state

    def run(self, network: nn.Module, call: Callable[[Tensor], Outputs], x: Tensor, state: Any) -> Outputs:
        """Result of `call(x)`, by a graph where there is one. call: `network`'s forward pass; state: what else decides
        its result."""
        if torch.cuda.is_current_stream_capturing():
            return call(x)
        if torch.is_grad_enabled():
            graph = self.training
            usable = graph is not None and network.training and self.training_state == state and graph.can_replay(x)
            return graph(x) if graph is not None and usable else call(x)
        if network.training or not self.inference or switched_off() or any(hooks_of(network)):
            return call(x)
        key = self.key(network, x, state)
        if key not in self.made:
            calls = self.seen.get(key, 0)
            if calls < self.EAGER_CALLS:
                if len(self.seen) >= self.COUNTED:
                    self.seen.clear()
                self.seen[key] = calls + 1
                return call(x)
            self.pool = self.pool or torch.cuda.graph_pool_handle()
            while len(self.made) >= self.KEPT:
                self.made.pop(next(iter(self.made)))
            try:
                self.made[key] = self.record(call, x, self.pool)
            except RuntimeError as error:
                log.warning("inference goes on without CUDA graphs: %s", first_line(error))
                self.inference = False
                return call(x)
        recorded, static, outputs = self.made[key]
        static.copy_(x)
        recorded.replay()
        return outputs.clone() if isinstance(outputs, Tensor) else [o.clone() for o in outputs]

    @staticmethod
    def key(network: nn.Module, x: Tensor, state: Any) -> tuple[Any, ...]:
        tensors = (*network.parameters(), *network.buffers())
        addresses = hash(tuple(t.data_ptr() for t in tensors))
        return x.shape, x.dtype, x.device, torch.is_inference_mode_enabled(), *AutocastState().key(), addresses, state

    @staticmethod
    def record(
        call: Callable[[Tensor], Outputs], x: Tensor, pool: Any = None
    ) -> tuple[torch.cuda.CUDAGraph, Tensor, Outputs]:
        """Graph of `call(x)`, its x and its result; it belongs to the shape, autocast and grad mode of the moment."""
        static, autocast = x.clone(), AutocastState()
        with side_stream(), autocast.context():
            call(static)  # the calls before may have used autocast's cache of weights
            with recording(pool or torch.cuda.graph_pool_handle()) as graph:
                outputs = call(static)
        return graph, static, outputs


class BlockGraphs:
    """Training graphs of the blocks that take turns at one position, made when a block is first used.

    Only blocks of at most LARGEST inner elements: larger ones keep a GPU busy for longer than starting their kernels
    takes. A graph's memory is its own, so none is made where less than HEADROOM of the GPU's memory is free after
    EAGER_CALLS passes without.
    """

    LARGEST = 13_000_000  # batch times tokens times E: about 2 ms forward and backward on an H100
    HEADROOM = 0.25
    EAGER_CALLS = 2

    def __init__(self) -> None:
        self.made: dict[Any, TrainingGraph] = {}
        self.memory: GraphMemory | None = None
        self.calls = 0
        self.off = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def run(self, block: nn.Module, call: Callable[[Tensor], Tensor], x: Tensor, expand: int, state: Any) -> Tensor:
        """Result of `call(x)`, the forward pass of `block` in training, by a graph where one is or can be made."""
        if self.off or x.numel() * expand > self.LARGEST or torch.cuda.is_current_stream_capturing():
            return call(x)
        key = id(block), state
        graph = self.made.get(key)
        if graph is None:
            self.calls += 1
            if self.calls <= self.EAGER_CALLS:
                return call(x)
            if not is_roomy(x.device, self.HEADROOM):
                self.off = True  # for good: what is taken by now stays taken, and asking takes time
                return call(x)
            self.memory = self.memory or GraphMemory()
            try:
                graph = self.made[key] = TrainingGraph(block, call, (x,), self.memory)
            except RuntimeError as error:
                log.warning("training goes on without CUDA graphs of this block: %s", first_line(error))
                self.off = True
        if graph is None or not graph.can_replay(x):
            return call(x)
        result = graph(x)
        assert isinstance(result, Tensor)
        return result
