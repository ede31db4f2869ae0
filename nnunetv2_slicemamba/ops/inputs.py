"""Arguments and gradients of a scan: checks, and conversions that several backends share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from math import prod
from typing import Any

import torch
from torch import Tensor

from nnunetv2_slicemamba.ops.dtypes import has_autocast

# of x, dt, B, C, A, D, delta_bias, dt_weight
Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def expand_dt(dt: Tensor, dt_weight: Tensor | None) -> Tensor:
    """Step sizes (batch, L, K, E) before bias and softplus from low-rank ones (batch, L, K, R), weight (K, E, R).

    Without a weight dt is already of full rank and is returned unchanged.
    """
    if dt_weight is None:
        return dt
    return torch.einsum("blkr,ker->blke", dt, dt_weight)


def no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Context in which operations on `device` compute in their arguments' types."""
    if has_autocast(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def without_autocast(backward: Callable[..., Any]) -> Any:
    """The function backward(ctx, grad_output), computing in the gradient's type even if it is called under autocast."""

    @wraps(backward)
    def run(ctx: Any, grad_output: Tensor) -> Any:
        with no_autocast(grad_output.device):
            return backward(ctx, grad_output)

    return run


def differentiable_once(backward: Callable[..., Any]) -> Any:
    """The function backward(ctx, *gradients), raising RuntimeError where its results are to be differentiated again.

    PyTorch's `once_differentiable` notices it only where the gradients that come in depend on something; otherwise the
    second derivative lacks a term and nothing is said.
    """

    @wraps(backward)
    def run(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "create_graph=True asks for second derivatives of what is differentiable once; leave it out, or set "
                "SLICEMAMBA_GRAPHS=0, SLICEMAMBA_FUSED=0 and SLICEMAMBA_BACKEND=reference"
            )
        return backward(ctx, *gradients)

    return run


def check_tensor(name: str, value: object) -> None:
    """Raises ValueError unless `value` is a tensor."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} is of type {type(value).__name__}, it must be a tensor: give torch.as_tensor of it")


def check_inputs(
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    A: Tensor,
    D: Tensor,
    sizes: tuple[int, ...],
    delta_bias: Tensor | None,
    dt_weight: Tensor | None,
    axis: int | None = None,
) -> None:
    """Raises ValueError where a shape, type or device does not fit; names the tensor, both shapes and the meaning."""
    given = {"x": x, "dt": dt, "B": B, "C": C, "A": A, "D": D}
    given |= {} if delta_bias is None else {"delta_bias": delta_bias}
    given |= {} if dt_weight is None else {"dt_weight": dt_weight}
    for name, value in given.items():
        check_tensor(name, value)
    if x.dim() != 3:
        raise ValueError(f"x has shape {tuple(x.shape)}, it must be (batch, L, E); flatten the spatial axes into L")
    batch, length, channels = x.shape
    if length != prod(sizes):
        raise ValueError(
            f"x has {length} tokens, sizes {sizes} make {prod(sizes)}; give the sizes of the image that was flattened"
        )
    directions = 2 * len(sizes) if axis is None else 2
    if A.dim() != 3:
        raise ValueError(f"A has shape {tuple(A.shape)}, it must be (K, E, N) = ({directions}, {channels}, N)")
    states = A.shape[2]
    rank = channels
    if dt_weight is not None:
        if dt_weight.dim() != 3:
            raise ValueError(
                f"dt_weight has shape {tuple(dt_weight.shape)}, it must be (K, E, R) = ({directions}, {channels}, R)"
            )
        rank = dt_weight.shape[2]
    tensors = {
        "A": (A, "(K, E, N)", (directions, channels, states)),
        "B": (B, "(batch, L, K, N)", (batch, length, directions, states)),
        "C": (C, "(batch, L, K, N)", (batch, length, directions, states)),
        "D": (D, "(K, E)", (directions, channels)),
        "dt": (dt, f"(batch, L, K, {'E' if dt_weight is None else 'R'})", (batch, length, directions, rank)),
        "delta_bias": (delta_bias, "(K, E)", (directions, channels)),
        "dt_weight": (dt_weight, "(K, E, R)", (directions, channels, rank)),
        "x": (x, "(batch, L, E)", (batch, length, channels)),
    }
    for name, (tensor, letters, shape) in tensors.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, it must be {letters} = {shape} for x {tuple(x.shape)} and "
                f"sizes {sizes} (K = 2 directions per spatial axis); reshape or permute it"
            )
        if not tensor.is_floating_point():
            raise ValueError(f"{name} is {tensor.dtype}, it must be a floating type; convert it with .float()")
        if tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device} and x on {x.device}, they must share one; move it with .to")
