"""A whole fused block as an operator of PyTorch with its own backward, for eager mode and torch.compile."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnunetv2_slicemamba.ops.bss_parameters import BssParameters
from nnunetv2_slicemamba.ops.cuda import bss
from nnunetv2_slicemamba.ops.cuda.bss import Saved
from nnunetv2_slicemamba.ops.inputs import differentiable_once

COUNT = len(BssParameters._fields)
_PARAMETERS = ", ".join(f"Tensor {name}" for name in BssParameters._fields)
_SAVED = ", ".join(f"Tensor saved_{name}" for name in Saved._fields)

torch.library.define(
    "slicemamba::bss",
    f"(Tensor x, {_PARAMETERS}, SymInt[] thickness, ScalarType dtype, bool save) -> "
    f"({', '.join(['Tensor'] * (1 + len(Saved._fields)))})",
)
torch.library.define(
    "slicemamba::bss_backward",
    f"(Tensor dout, Tensor x, ScalarType x_dtype, {_PARAMETERS}, {_SAVED}, SymInt[] thickness) -> "
    f"({', '.join(['Tensor'] * (1 + COUNT))})",
)


def _forward(x: Tensor, *rest: Any) -> tuple[Tensor, Saved]:
    *parameters, thickness, dtype, save = rest
    return bss.forward(x, BssParameters(*parameters), tuple(thickness), dtype, save)


def _backward(dout: Tensor, x: Tensor, x_dtype: torch.dtype, *rest: Any) -> tuple[Tensor, ...]:
    *tensors, thickness = rest
    parameters, saved = BssParameters(*tensors[:COUNT]), Saved(*tensors[COUNT:])
    dx, gradients = bss.backward(dout, x, x_dtype, parameters, saved, tuple(thickness))
    return dx, *gradients


@torch.library.impl("slicemamba::bss", ("cpu", "cuda"))
def _operator_forward(*arguments: Any) -> tuple[Tensor, ...]:
    out, saved = _forward(*arguments)
    return out, *(t if t.numel() else t.new_empty(0) for t in saved)  # outputs must not be one tensor


@torch.library.impl("slicemamba::bss_backward", ("cpu", "cuda"))
def _operator_backward(*arguments: Any) -> tuple[Tensor, ...]:
    return _backward(*arguments)


@torch.library.register_fake("slicemamba::bss")
def _fake_forward(x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *tensors, _, dtype, save = rest
    p = BssParameters(*tensors)
    out = x.new_empty(x.shape, dtype=dtype)
    if not save:
        return out, *(x.new_empty(0) for _ in Saved._fields)
    tokens, channels = x.numel() // x.shape[-1], p.conv_bias.shape[0]
    K, rows, _ = p.x_proj.shape

    def make(*shape: Any) -> Tensor:
        return x.new_empty(shape, dtype=dtype)

    A = x.new_empty((K, channels, p.A_logs.shape[1]), dtype=torch.float32)
    states = bss.scan_kernels.empty_states(make(x.shape[0], tokens // x.shape[0], channels), A, True)
    copies = [x.new_empty(0) if dtype == torch.float32 else make(*w.shape) for w in p.products]
    copy = make(*x.shape) if bss.needs_copy(x, dtype) else x.new_empty(0)
    return out, copy, make(tokens, 2 * channels), make(tokens, K * rows), make(tokens, channels), states, A, *copies


@torch.library.register_fake("slicemamba::bss_backward")
def _fake_backward(dout: Tensor, x: Tensor, x_dtype: torch.dtype, *rest: Any) -> tuple[Tensor, ...]:
    return x.new_empty(x.shape, dtype=x_dtype), *(t.new_empty(t.shape) for t in rest[:COUNT])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, *parameters, thickness, dtype, _ = inputs
    _keep(ctx, x, BssParameters(*parameters), Saved(*output[1:]), thickness, dtype)


def _keep(ctx: Any, x: Tensor, p: BssParameters, saved: Saved, thickness: Any, dtype: torch.dtype) -> None:
    """Saves x, the parameters and `saved` as the backward pass takes them."""
    ctx.thickness, ctx.x_dtype = thickness, x.dtype
    x = saved.copy if bss.needs_copy(x, dtype) else x
    read = p.products if dtype == torch.float32 else tuple(saved[6:])
    ctx.save_for_backward(x, *p, saved.copy.new_empty(0), *saved[1:6], *read)


def _gradients(ctx: Any, call: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    x, *tensors = ctx.saved_tensors
    results = call(dout, x, ctx.x_dtype, *tensors, ctx.thickness)
    return tuple(g if needed else None for g, needed in zip(results, ctx.needs_input_grad[: 1 + COUNT], strict=True))


def _operator_gradients(ctx: Any, dout: Tensor, *_: Tensor) -> tuple[Any, ...]:
    # the registered operator, because this function is traced when it is compiled
    return *_gradients(ctx, torch.ops.slicemamba.bss_backward, dout), None, None, None


torch.library.register_autograd("slicemamba::bss", _operator_gradients, setup_context=_setup_context)


class BssFunction(torch.autograd.Function):
    """The operator without PyTorch's dispatcher, which costs more host time than launching the kernels."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        out, saved = _forward(*arguments, True)
        x, *parameters, thickness, dtype = arguments
        _keep(ctx, x, BssParameters(*parameters), saved, thickness, dtype)
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, dout: Tensor) -> tuple[Any, ...]:
        return *_gradients(ctx, _backward, dout), None, None


def apply(x: Tensor, parameters: BssParameters, thickness: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """BSS of x (batch, *sizes, C) for float32 parameters, differentiable once; the same shape in `dtype`.

    dtype: the compute type. Call it only where `bss.fits(x, E)`.
    """
    tensors = (x, *parameters)
    save = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    # neither fake nor otherwise special
    if torch.compiler.is_compiling() or not all(type(t) in (Tensor, torch.nn.Parameter) for t in tensors):
        return torch.ops.slicemamba.bss(*tensors, thickness, dtype, save)[0]
    if save:
        return BssFunction.apply(*tensors, thickness, dtype)
    return _forward(*tensors, thickness, dtype, False)[0]
