"""CUDA graphs of networks and blocks: a recorded pass costs the host one call instead of hundreds.

A block's forward and backward pass are two dozen kernels of a few microseconds to a millisecond, and Python needs
longer to start them than small ones take. A graph starts them all at once; it reads and writes fixed memory, so it
holds for one shape, type and slicing, follows weights that change in place, and is dropped where their memory
changes.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import starmap
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

ENVIRONMENT_VARIABLE = "SLICEMAMBA_GRAPHS"
WARM_UPS = 3  # passes before recording: libraries choose their algorithms, caches fill
Outputs = Tensor | list[Tensor]
log = logging.getLogger(__name__)


class Mode:
    """How autocast stands, to be compared and to be repeated. (On a GPU.)"""

    def __init__(self) -> None:
        self.enabled = torch.is_autocast_enabled("cuda")
        self.dtype = torch.get_autocast_dtype("cuda")

    def key(self) -> tuple[Any, ...]:
        return self.enabled, self.dtype

    def again(self) -> torch.autocast:
        # cached casts would be read by the graph after the cache is emptied
        return torch.autocast("cuda", self.dtype, self.enabled, cache_enabled=False)


@contextmanager
def recording(pool: Any) -> Iterator[torch.cuda.CUDAGraph]:
    """Records what is queued on the current stream, not the default one, into the graph that it yields."""
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
    """Work on another stream, after all that was queued and before all that follows."""
    stream, present = _stream(torch.cuda.current_device()), torch.cuda.current_stream()
    stream.wait_stream(present)
    with torch.cuda.stream(stream):
        yield
    present.wait_stream(stream)


def as_list(outputs: Outputs) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


class _Called(nn.Module):
    """A module whose forward pass is `call`, one of the module's methods."""

    def __init__(self, module: nn.Module, call: Callable[[Tensor], Outputs]) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self, x: Tensor) -> Outputs:
        return self.call(x)


def _hooks(module: nn.Module) -> list[Any]:
    """Where all modules in it keep their hooks, which a graph would not call."""
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return [getattr(one, kind) for one in module.modules() for kind in kinds]


class Pass:
    """A replayed forward pass, which lives for as long as its gradients can be asked for."""

    def __init__(self) -> None:
        self.over = False


class Memory:
    """Where graphs keep what their forward passes leave for the backward passes, one pass at a time.

    pool: of PyTorch's allocator, for the recordings.
    """

    def __init__(self) -> None:
        self.pool: Any = torch.cuda.graph_pool_handle()
        self.latest: Callable[[], Pass | None] = lambda: None
        self.lent: list[tuple[nn.Parameter, Tensor]] = []

    def is_taken(self) -> bool:
        """Whether a pass that is not over needs what lies here."""
        latest = self.latest()
        return not (latest is None or latest.over)

    def take(self) -> Pass:
        """A pass that may write here now."""
        self.spare_gradients()
        taken = Pass()
        self.latest = weakref.ref(taken)
        return taken

    def spare_gradients(self) -> None:
        """Moves the latest gradients out of the way: autograd takes a graph's own tensor for an empty .grad, and what
        other recordings write on their way may lie in the same place."""
        for p, lent in self.lent:
            if p.grad is not None and p.grad.data_ptr() == lent.data_ptr():
                p.grad = p.grad.clone()
        self.lent = []


class TrainingGraph:
    """A module's pass over x (any shape), with gradients, as two graphs.

    call: the module's forward pass, which returns a tensor or a list of them and nothing else, under the present
    autocast. x: has the shape, type and requires_grad of all that follow. memory: shared with graphs that `takes` is
    to keep out of each other's way. RuntimeError if it cannot be recorded.
    """

    def __init__(
        self, module: nn.Module, call: Callable[[Tensor], Outputs], x: Tensor, memory: Memory | None = None
    ) -> None:
        self.mode, self.memory = Mode(), memory or Memory()
        # by places: a module may stand in several (nnU-Net's convolutions do), and functional_call would put a twin
        # back into it, not the parameter, if it were named twice
        places: dict[str, nn.Parameter] = {}
        self.held: list[tuple[dict[str, Any], str, nn.Parameter, int, bool]] = []
        for prefix, child in module.named_modules():
            for name, p in child._parameters.items():
                if p is not None:
                    self.held.append((child._parameters, name, p, p.data_ptr(), p.requires_grad))
                    if p.requires_grad:
                        places[".".join(filter(None, ("module", prefix, name)))] = p
        self.parameters = list({id(p): p for p in places.values()}.values())
        # The parameters' own places in autograd may belong to a pass that is not over, on another stream, which a
        # recording must not wait for: it uses other tensors with the same memory.
        twin = {id(p): p.detach().requires_grad_() for p in self.parameters}
        twins = {name: twin[id(p)] for name, p in places.items()}
        called = _Called(module, call)
        self.x = x.detach().clone().requires_grad_(x.requires_grad)
        sources = [self.x, *twin.values()] if x.requires_grad else list(twin.values())
        pool = self.memory.pool

        def forward() -> tuple[Outputs, list[Tensor]]:
            with self.mode.again():
                outputs = functional_call(called, twins, (self.x,), tie_weights=False)
            return outputs, as_list(outputs)

        def backward(made: list[Tensor], slopes: list[Tensor]) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(made, sources, slopes, allow_unused=True)

        with side_stream():
            for _ in range(WARM_UPS):
                _, made = forward()
                backward(made, [torch.zeros_like(o) for o in made])
            del made
            torch.cuda.empty_cache()  # a recording cannot use what the passes before it left in the cache
            with recording(pool) as self.forward_graph:
                outputs, made = forward()
            self.slopes = [torch.zeros_like(o) for o in made]
            with recording(pool) as self.backward_graph:
                gradients = backward(made, self.slopes)
        self.outputs = [o.detach() for o in made]
        self.is_list = not isinstance(outputs, Tensor)
        self.hooks = _hooks(module)
        none = () if x.requires_grad else (None,)
        self.gradients = [None if g is None else g.detach() for g in (*none, *gradients)]
        of_parameters = self.gradients[1:]
        self.lent = [(p, g) for p, g in zip(self.parameters, of_parameters, strict=True) if g is not None]

    def takes(self, x: Tensor) -> bool:
        """Whether a replay gives what the module's pass over x would: x, autocast and parameters are like those
        recorded, no hook waits for a module's pass, and no earlier pass for its gradients."""
        if any(self.hooks) or self.memory.is_taken():
            return False
        own = self.x
        same = x.shape == own.shape and x.dtype == own.dtype and x.requires_grad == own.requires_grad
        return same and Mode().key() == self.mode.key() and all(starmap(_is_unchanged, self.held))

    def __call__(self, x: Tensor) -> Outputs:
        """The recorded pass on x. The results' memory is used again by the next pass."""
        results: tuple[Tensor, ...] = _Replay.apply(self, x, *self.parameters)
        return list(results) if self.is_list else results[0]


def _is_unchanged(owner: dict[str, Any], name: str, p: nn.Parameter, address: int, trained: bool) -> bool:
    # what is frozen since gets no gradient from autograd; what was frozen would miss its own
    return owner.get(name) is p and p.data_ptr() == address and (trained or not p.requires_grad)


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graph: TrainingGraph, x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.graph, ctx.of, ctx.leaf = graph, graph.memory.take(), x.is_leaf
        ctx.set_materialize_grads(False)
        graph.x.detach().copy_(x)
        graph.forward_graph.replay()
        return tuple(o.detach() for o in graph.outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, ...]:
        graph: TrainingGraph = ctx.graph
        of: Pass = ctx.of
        # the backward graph writes over what the forward graph left
        if of.over or graph.memory.latest() is not of:
            raise RuntimeError(
                "the gradients of a pass that is replayed as a CUDA graph can be asked for once, and these were: "
                f"call backward once, with the sum of all losses, or set {ENVIRONMENT_VARIABLE}=0"
            )
        for own, given in zip(graph.slopes, slopes, strict=True):
            if given is None:
                own.zero_()
            else:
                own.copy_(given)
        of_x, *of_parameters = graph.gradients
        graph.backward_graph.replay()
        of.over, graph.memory.lent = True, graph.lent
        if of_x is not None:
            of_x = of_x.clone() if ctx.leaf else of_x.detach()
        return None, of_x, *(None if g is None else g.detach() for g in of_parameters)


def switched_off() -> bool:
    """Whether SLICEMAMBA_GRAPHS is 0."""
    return os.environ.get(ENVIRONMENT_VARIABLE) == "0"


class NetworkGraphs:
    """The graphs of one network: of inference, made by themselves, and of training, made by `record_training`.

    Inference: a call with gradients disabled, in eval mode, on a GPU, is recorded when its shape comes for the third
    time; the `KEPT` latest are kept, enough for the folds of an ensemble, which come in turns, each with its slicing.
    A graph is used only while autocast, `state` and the addresses of the network's tensors are what they were.
    Results are copies, so that all graphs can use the same memory. A copy of a network starts without graphs.
    """

    KEPT = 8
    EAGER_CALLS = 2
    COUNTED = 64  # shapes and states whose calls are counted

    def __init__(self) -> None:
        self.inference = True  # training switches it off to leave the memory to the training step
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
        """From now on training passes on tensors like x replay. RuntimeError if they cannot be recorded."""
        self.training = None
        self.training, self.training_state = TrainingGraph(network, call, x), state

    def run(self, network: nn.Module, call: Callable[[Tensor], Outputs], x: Tensor, state: Any) -> Outputs:
        """`call(x)` by a graph where there is one; call: `network`'s forward pass. state: what else decides it."""
        if torch.cuda.is_current_stream_capturing():
            return call(x)
        if torch.is_grad_enabled():
            graph = self.training
            usable = graph is not None and network.training and self.training_state == state and graph.takes(x)
            return graph(x) if graph is not None and usable else call(x)
        if network.training or not self.inference or switched_off() or any(_hooks(network)):
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
                log.warning("inference goes on without CUDA graphs: %s", error)
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
        return x.shape, x.dtype, x.device, torch.is_inference_mode_enabled(), *Mode().key(), addresses, state

    @staticmethod
    def record(
        call: Callable[[Tensor], Outputs], x: Tensor, pool: Any = None
    ) -> tuple[torch.cuda.CUDAGraph, Tensor, Outputs]:
        """(graph, its x, its result); it belongs to the shape, autocast and grad mode of the moment."""
        static, mode = x.clone(), Mode()
        with side_stream(), mode.again():
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
        self.memory: Memory | None = None
        self.calls = 0
        self.off = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def run(self, block: nn.Module, call: Callable[[Tensor], Tensor], x: Tensor, expand: int, state: Any) -> Tensor:
        """`call(x)`, the forward pass of `block` in training, by a graph where there is one or one can be made."""
        if self.off or x.numel() * expand > self.LARGEST or torch.cuda.is_current_stream_capturing():
            return call(x)
        key = id(block), state
        graph = self.made.get(key)
        if graph is None:
            self.calls += 1
            if self.calls <= self.EAGER_CALLS:
                return call(x)
            free, total = torch.cuda.mem_get_info(x.device)
            if free < self.HEADROOM * total:
                self.off = True  # for good: what is taken by now stays taken, and asking takes time
                return call(x)
            self.memory = self.memory or Memory()
            try:
                graph = self.made[key] = TrainingGraph(block, call, x, self.memory)
            except RuntimeError as error:
                log.warning("training goes on without CUDA graphs of this block: %s", error)
                self.off = True
        if graph is None or not graph.takes(x):
            return call(x)
        result = graph(x)
        assert isinstance(result, Tensor)
        return result
