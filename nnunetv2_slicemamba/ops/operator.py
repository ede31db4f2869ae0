"""A compiled scan as an operator of PyTorch with its own backward, for eager mode and torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nnunetv2_slicemamba.ops.inputs import Gradients, differentiable_once

_INPUTS = "Tensor x, Tensor dt, Tensor B, Tensor C, Tensor A, Tensor D, Tensor? delta_bias, Tensor? dt_weight"
_SLICING = "SymInt[] sizes, SymInt[] thickness"


class ScanOperator:
    """The operator torch.ops.slicemamba.scan_NAME for tensors on devices of type `device_type`.

    forward(x, dt, B, C, A, D, delta_bias, dt_weight, sizes, thickness, save) -> (out (batch, L, E) in x's type, saved
    states), arguments as in `slice_scan`. backward(grad_output, the same eight tensors, states, sizes, thickness) ->
    their gradients, contiguous, an empty tensor for one that was None. empty_states(x, A, save) -> an uninitialised
    tensor like the saved states, for fake tensors too.
    """

    def __init__(
        self,
        name: str,
        device_type: str,
        forward: Callable[..., tuple[Tensor, Tensor]],
        backward: Callable[..., Gradients],
        empty_states: Callable[[Tensor, Tensor, bool], Tensor],
    ) -> None:
        self.forward, self.backward = forward, backward
        operator, gradient = f"slicemamba::scan_{name}", f"slicemamba::scan_{name}_backward"
        tensors = ", ".join(["Tensor"] * 8)
        torch.library.define(operator, f"({_INPUTS}, {_SLICING}, bool save) -> (Tensor, Tensor)")
        torch.library.define(gradient, f"(Tensor grad_output, {_INPUTS}, Tensor states, {_SLICING}) -> ({tensors})")
        self.registered = getattr(torch.ops.slicemamba, f"scan_{name}")
        registered_backward = getattr(torch.ops.slicemamba, f"scan_{name}_backward")

        def fake(x: Tensor, dt: Tensor, B: Tensor, C: Tensor, A: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
            return x.new_empty(x.shape), empty_states(x, A, rest[-1])

        def operator_backward(ctx: Any, grad_output: Tensor, _: Tensor) -> tuple[Any, ...]:
            # the registered operator, because this function is traced when it is compiled
            gradients = registered_backward(grad_output, *ctx.saved_tensors, ctx.sizes, ctx.thickness)
            return *_needed(gradients, ctx.needs_input_grad), None, None, None

        torch.library.impl(operator, device_type, lambda *arguments: forward(*_hashable(arguments)))
        torch.library.impl(gradient, device_type, lambda *arguments: backward(*_hashable(arguments)))
        torch.library.register_fake(operator, fake)
        torch.library.register_fake(gradient, _fake_backward)
        torch.library.register_autograd(operator, operator_backward, setup_context=_setup_context)

    def apply(self, *arguments: Any) -> Tensor:
        """The scan of (x, dt, B, C, A, D, delta_bias, dt_weight, sizes, thickness), differentiable; (batch, L, E)."""
        tensors = [t for t in arguments[:8] if t is not None]
        save = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        # neither fake nor otherwise special
        if torch.compiler.is_compiling() or not all(type(t) in (Tensor, torch.nn.Parameter) for t in tensors):
            return self.registered(*arguments, save)[0]
        return EagerScan.apply(self, *arguments) if save else self.forward(*arguments, False)[0]


class EagerScan(torch.autograd.Function):
    """The operator without PyTorch's dispatcher, which costs more host time than launching the kernels."""

    @staticmethod
    def forward(ctx: Any, operator: ScanOperator, *arguments: Any) -> Tensor:
        out, states = operator.forward(*arguments, True)
        *tensors, ctx.sizes, ctx.thickness = arguments
        ctx.operator = operator
        ctx.save_for_backward(*tensors, states)
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
        arguments: tuple[Any, ...] = (grad_output, *ctx.saved_tensors, ctx.sizes, ctx.thickness)
        gradients = ctx.operator.backward(*arguments)
        return None, *_needed(gradients, ctx.needs_input_grad[1:]), None, None


def _hashable(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """PyTorch's arguments with its lists, sizes and thickness, as tuples."""
    return tuple(tuple(a) if isinstance(a, list) else a for a in arguments)


def _fake_backward(grad_output: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    D = arguments[5]
    return tuple(D.new_empty(0) if t is None else t.new_empty(t.shape) for t in arguments[:8])


def _needed(gradients: Sequence[Tensor], needs: Sequence[bool]) -> tuple[Tensor | None, ...]:
    return tuple(g if needed else None for g, needed in zip(gradients, needs[:8], strict=True))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.sizes, ctx.thickness, _ = inputs
    ctx.save_for_backward(*tensors, output[1])
