"""How does PyTorch see a compiled scan? One operator with its own backward, for eager mode and torch.compile."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NAMESPACE = "slicemamba"
_INPUTS = "Tensor x, Tensor dt, Tensor B, Tensor C, Tensor A, Tensor D, Tensor? delta_bias, Tensor? dt_weight"
_SLICING = "SymInt[] sizes, SymInt[] thickness"
Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]

torch.library.define(f"{NAMESPACE}::scan", f"({_INPUTS}, {_SLICING}, bool save) -> (Tensor, Tensor)")
torch.library.define(
    f"{NAMESPACE}::scan_backward",
    f"(Tensor dy, {_INPUTS}, Tensor states, {_SLICING}) -> ({', '.join(['Tensor'] * 8)})",
)


def _kernels(device: torch.device) -> ModuleType:
    """The module with `forward`, `backward` and `empty_states` for tensors on `device`.

    forward(x, dt, B, C, A, D, delta_bias, dt_weight, sizes, thickness, save) -> (out (batch, L, E) in x's type, saved
    states), arguments as in `slice_scan`. backward(dy, the same eight tensors, states, sizes, thickness) -> their
    gradients, contiguous, an empty tensor for one that was None. empty_states(x, A, save) -> an uninitialised tensor
    like the saved states, for fake tensors too.
    """
    if device.type == "cuda":
        from nnunetv2_slicemamba.ops.cuda import run

        return run
    from nnunetv2_slicemamba.ops import numba_scan

    return numba_scan


def _hashable(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The dispatcher's arguments with its lists, sizes and thickness, as tuples."""
    return tuple(tuple(a) if isinstance(a, list) else a for a in arguments)


@torch.library.impl(f"{NAMESPACE}::scan", ("cpu", "cuda"))
def _scan(*arguments: Any) -> tuple[Tensor, Tensor]:
    return _kernels(arguments[0].device).forward(*_hashable(arguments))


@torch.library.impl(f"{NAMESPACE}::scan_backward", ("cpu", "cuda"))
def _scan_backward(*arguments: Any) -> Gradients:
    return _kernels(arguments[0].device).backward(*_hashable(arguments))


@torch.library.register_fake(f"{NAMESPACE}::scan")
def _fake_scan(x: Tensor, dt: Tensor, B: Tensor, C: Tensor, A: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), _kernels(x.device).empty_states(x, A, rest[-1])


@torch.library.register_fake(f"{NAMESPACE}::scan_backward")
def _fake_backward(dy: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    D = arguments[5]
    return tuple(D.new_empty(0) if t is None else t.new_empty(t.shape) for t in arguments[:8])


def _needed(gradients: Sequence[Tensor], ctx: Any) -> tuple[Tensor | None, ...]:
    return tuple(g if needed else None for g, needed in zip(gradients, ctx.needs_input_grad[:8], strict=True))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.sizes, ctx.thickness, _ = inputs
    ctx.save_for_backward(*tensors, output[1])


def _backward(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Any, ...]:
    # the registered operator, because this function is traced when it is compiled
    gradients = torch.ops.slicemamba.scan_backward(dy, *ctx.saved_tensors, ctx.sizes, ctx.thickness)
    return *_needed(gradients, ctx), None, None, None


torch.library.register_autograd(f"{NAMESPACE}::scan", _backward, setup_context=_setup_context)


class EagerScan(torch.autograd.Function):
    """The same without PyTorch's dispatcher, which costs more host time than launching the kernels."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        out, states = _kernels(arguments[0].device).forward(*arguments, True)
        *tensors, ctx.sizes, ctx.thickness = arguments
        ctx.save_for_backward(*tensors, states)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        arguments: tuple[Any, ...] = (dy, *ctx.saved_tensors, ctx.sizes, ctx.thickness)
        gradients = _kernels(dy.device).backward(*arguments)
        return *_needed(gradients, ctx), None, None


def apply(*arguments: Any) -> Tensor:
    """The scan of (x, dt, B, C, A, D, delta_bias, dt_weight, sizes, thickness), differentiable; (batch, L, E)."""
    tensors = [t for t in arguments[:8] if t is not None]
    save = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    # neither fake nor otherwise special
    if torch.compiler.is_compiling() or not all(type(t) in (Tensor, torch.nn.Parameter) for t in tensors):
        return torch.ops.slicemamba.scan(*arguments, save)[0]
    return EagerScan.apply(*arguments) if save else _kernels(arguments[0].device).forward(*arguments, False)[0]
