"""CUDA graphs of training passes: a recorded pass costs the host one call instead of hundreds.

A block's forward and backward pass are two dozen kernels of a few microseconds to a millisecond, and Python needs
longer to start them than small ones take. A graph starts them all at once; it reads and writes fixed memory, so it
holds for one shape, type and slicing, follows weights that change in place, and is dropped where their memory
changes.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import starmap
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nnunetv2_slicemamba.ops.inputs import differentiable_once

ENVIRONMENT_VARIABLE = "SLICEMAMBA_GRAPHS"
WARM_UPS = 3  # passes before recording: libraries choose their algorithms, caches fill
Outputs = Tensor | list[Tensor]


class AutocastState:
    """Autocast's present state on a GPU, to be compared and to be entered again."""

    def __init__(self) -> None:
        self.enabled = torch.is_autocast_enabled("cuda")
        self.dtype = torch.get_autocast_dtype("cuda")

    def key(self) -> tuple[Any, ...]:
        return self.enabled, self.dtype

    def context(self) -> torch.autocast:
        """Context in which autocast is in this state."""
        # cached casts would be read by the graph after the cache is emptied
        return torch.autocast("cuda", self.dtype, self.enabled, cache_enabled=False)


@contextmanager
def recording(pool: Any) -> Iterator[torch.cuda.CUDAGraph]:
    """Records all work queued on the current stream, not the default one, into the graph that it yields."""
    graph = torch.cuda.CUDAGraph()
    # other threads, such as the one that pins batches, go on allocating meanwhile
    graph.capture_begin(pool, capture_error_mode="thread_local")
    try:
        yield graph
    except BaseException:
        with suppress(RuntimeError):  # what went wrong is in the first error
            graph.capture_end()
        raise
    graph.capture_end()


@lru_cache(maxsize=64)
def _stream(device: int) -> torch.cuda.Stream:
    # one for all recordings: cuBLAS keeps a workspace of some 30 MiB for every stream that it has seen
    return torch.cuda.Stream(device)


@contextmanager
def side_stream() -> Iterator[None]:
    """Context of another stream: work in it comes after all that was queued and before all that follows."""
    stream, present = _stream(torch.cuda.current_device()), torch.cuda.current_stream()
    stream.wait_stream(present)
    with torch.cuda.stream(stream):
        yield
    present.wait_stream(stream)


def as_list(outputs: Outputs) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


class _Called(nn.Module):
    """A module whose forward pass is `call`, one of the module's methods."""

    def __init__(self, module: nn.Module, call: Callable[..., Outputs]) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self, *inputs: Tensor) -> Outputs:
        return self.call(*inputs)


def hooks_of(module: nn.Module) -> list[Any]:
    """Hooks of all modules in `module`, which a graph would not call; the dictionaries that hold them."""
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return [getattr(one, kind) for one in module.modules() for kind in kinds]


class Handle:
    """Handle of a replayed forward pass, which lives for as long as its gradients can be asked for."""

    def __init__(self) -> None:
        self.finished = False


class GraphMemory:
    """Memory in which graphs keep what forward passes leave for backward passes, of one pass at a time.

    pool: of PyTorch's allocator, for the recordings.
    """

    def __init__(self) -> None:
        self.pool: Any = torch.cuda.graph_pool_handle()
        self.latest: Callable[[], Handle | None] = lambda: None
        self.borrowed_grads: list[tuple[nn.Parameter, Tensor]] = []

    def is_in_use(self) -> bool:
        """True if a pass that is not finished needs what lies here."""
        latest = self.latest()
        return not (latest is None or latest.finished)

    def new_handle(self) -> Handle:
        """Handle of a pass that may write here from now on."""
        self.detach_grads()
        handle = Handle()
        self.latest = weakref.ref(handle)
        return handle

    def detach_grads(self) -> None:
        """Copies the latest gradients where a parameter's .grad still is the graph's own tensor.

        Autograd takes that tensor for an empty .grad, and what other recordings write may lie in the same place.
        """
        for p, borrowed in self.borrowed_grads:
            if p.grad is not None and p.grad.data_ptr() == borrowed.data_ptr():
                p.grad = p.grad.clone()
        self.borrowed_grads = []


class TrainingGraph:
    """A module's pass over its inputs (any shapes), with gradients, as two graphs.

    call: the module's forward pass, which returns a tensor or a list of them and nothing else, under the present
    autocast. inputs: have the shapes, types and requires_grad of all that follow. memory: shared with graphs that
    `can_replay` is to keep out of each other's way. RuntimeError if it cannot be recorded.
    """

    def __init__(
        self,
        module: nn.Module,
        call: Callable[..., Outputs],
        inputs: Sequence[Tensor],
        memory: GraphMemory | None = None,
    ) -> None:
        self.autocast, self.memory = AutocastState(), memory or GraphMemory()
        # by places: a module may stand in several (nnU-Net's convolutions do), and functional_call would put a twin
        # back into it, not the parameter, if it were named twice
        places: dict[str, nn.Parameter] = {}
        self.recorded_parameters: list[tuple[dict[str, Any], str, nn.Parameter, int, bool]] = []
        for prefix, child in module.named_modules():
            for name, p in child._parameters.items():
                if p is not None:
                    self.recorded_parameters.append((child._parameters, name, p, p.data_ptr(), p.requires_grad))
                    if p.requires_grad:
                        places[".".join(filter(None, ("module", prefix, name)))] = p
        self.parameters = list({id(p): p for p in places.values()}.values())
        # The parameters' own places in autograd may belong to a pass that is not over, on another stream, which a
        # recording must not wait for: it uses other tensors with the same memory.
        twin = {id(p): p.detach().requires_grad_() for p in self.parameters}
        twins = {name: twin[id(p)] for name, p in places.items()}
        called = _Called(module, call)
        self.inputs = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
        sources = [*(x for x in self.inputs if x.requires_grad), *twin.values()]
        pool = self.memory.pool

        def forward() -> tuple[Outputs, list[Tensor]]:
            with self.autocast.context():
                outputs = functional_call(called, twins, tuple(self.inputs), tie_weights=False)
            return outputs, as_list(outputs)

        def backward(made: list[Tensor], grad_outputs: list[Tensor]) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(made, sources, grad_outputs, allow_unused=True)

        with side_stream():
            for _ in range(WARM_UPS):
                _, made = forward()
                backward(made, [torch.zeros_like(o) for o in made])
            del made
            torch.cuda.empty_cache()  # a recording cannot use what the passes before it left in the cache
            with recording(pool) as self.forward_graph:
                outputs, made = forward()
            self.grad_outputs = [torch.zeros_like(o) for o in made]
            with recording(pool) as self.backward_graph:
                gradients = backward(made, self.grad_outputs)
        self.outputs = [o.detach() for o in made]
        self.is_list = not isinstance(outputs, Tensor)
        self.hooks = hooks_of(module)
        remaining = iter(gradients)
        made_for = [next(remaining) if x.requires_grad else None for x in self.inputs]
        self.gradients = [None if g is None else g.detach() for g in (*made_for, *remaining)]
        grad_parameters = self.gradients[len(self.inputs) :]
        self.borrowed_grads = [(p, g) for p, g in zip(self.parameters, grad_parameters, strict=True) if g is not None]

    def can_replay(self, *inputs: Tensor) -> bool:
        """True if a replay gives the result of the module's pass over these inputs.

        They, autocast and parameters are then like those recorded, no hook waits for a module's pass, and no earlier
        pass for its gradients.
        """
        if any(self.hooks) or self.memory.is_in_use() or len(inputs) != len(self.inputs):
            return False
        trained = torch.is_grad_enabled()
        same = all(
            x.shape == own.shape and x.dtype == own.dtype and (x.requires_grad == own.requires_grad or not trained)
            for x, own in zip(inputs, self.inputs, strict=True)
        )
        same = same and AutocastState().key() == self.autocast.key()
        return same and all(starmap(_is_unchanged, self.recorded_parameters))

    def __call__(self, *inputs: Tensor) -> Outputs:
        """Replays the pass. The results' memory is used again by the next pass. Without gradients, its forward half."""
        results: tuple[Tensor, ...] = _Replay.apply(self, *inputs, *self.parameters)
        return list(results) if self.is_list else results[0]


def _is_unchanged(owner: dict[str, Any], name: str, p: nn.Parameter, address: int, trained: bool) -> bool:
    # what is frozen since gets no gradient from autograd; what was frozen would miss its own
    return owner.get(name) is p and p.data_ptr() == address and (trained or not p.requires_grad)


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graph: TrainingGraph, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = tensors[: len(graph.inputs)]
        ctx.graph, ctx.handle, ctx.leaves = graph, graph.memory.new_handle(), [x.is_leaf for x in inputs]
        ctx.set_materialize_grads(False)
        for own, x in zip(graph.inputs, inputs, strict=True):
            own.detach().copy_(x)
        graph.forward_graph.replay()
        return tuple(o.detach() for o in graph.outputs)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        graph: TrainingGraph = ctx.graph
        handle: Handle = ctx.handle
        # the backward graph writes over what the forward graph left
        if handle.finished or graph.memory.latest() is not handle:
            raise RuntimeError(
                "the gradients of a pass that is replayed as a CUDA graph can be asked for once, and these were: "
                f"call backward once, with the sum of all losses, or set {ENVIRONMENT_VARIABLE}=0"
            )
        for own, given in zip(graph.grad_outputs, grad_outputs, strict=True):
            if given is None:
                own.zero_()
            else:
                own.copy_(given)
        graph.backward_graph.replay()
        handle.finished, graph.memory.borrowed_grads = True, graph.borrowed_grads
        # a leaf would keep the graph's own tensor as its .grad
        leaves = [*ctx.leaves, *(False for _ in graph.parameters)]
        return None, *(
            None if g is None else g.clone() if leaf else g.detach()
            for g, leaf in zip(graph.gradients, leaves, strict=True)
        )


def is_roomy(device: torch.device, share: float = 0.25) -> bool:
    """True if at least this share of a GPU's memory is free, so that graphs may keep some of it."""
    free, total = torch.cuda.mem_get_info(device)
    return free >= share * total


def switched_off() -> bool:
    """True if SLICEMAMBA_GRAPHS is 0."""
    return os.environ.get(ENVIRONMENT_VARIABLE) == "0"
