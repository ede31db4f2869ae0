"""LayerNorm over the channels on a GPU: short rows at memory's speed, and results in the type of what reads them.

PyTorch's kernels give every row a block of threads, which the network's rows of 6 to 200 channels cannot feed.
"""

from __future__ import annotations

import struct
from typing import Any

import torch
from torch import Tensor

from nnunetv2_slicemamba.ops.cuda import bss_kernels as kernels
from nnunetv2_slicemamba.ops.cuda import cubins, driver
from nnunetv2_slicemamba.ops.cuda.cubins import BssVariant
from nnunetv2_slicemamba.ops.inputs import differentiable_once

EPSILON = 1e-5  # the kernels'
_ARGUMENTS = struct.Struct("6Pq2i")  # LayerNormArgs


def fits(x: Tensor, weight: Tensor, dtype: torch.dtype) -> bool:
    """True if the kernels can normalise x (.., C), with a result of type `dtype`."""
    return (
        len({x.dtype, dtype} - {torch.float32}) < 2
        and x.dtype in cubins.ELEMENTS
        and weight.dtype == torch.float32
        and 0 < x.shape[-1] <= kernels.MAX_CHANNELS
        and x.numel() > 0
    )


def _launch(
    x: Tensor, gradient: Tensor | None, gamma: Tensor, beta: Tensor, out: Tensor, result: Tensor
) -> Tensor | None:
    """Launches a pass; returns the backward pass's partial sums. result: `out` or the gradient, LayerNorm's in type."""
    channels = x.shape[-1]
    tokens = x.numel() // channels
    at = [0 if t is None else t.data_ptr() for t in (x, gradient, gamma, beta, out)]
    wide = channels % cubins.PIECE == 0 and (at[0] | at[1] | at[2] | at[3] | at[4]) % 16 == 0
    pieces, lanes = kernels.norm_layout(channels, wide)
    blocks, name, parts = -(-tokens * lanes // kernels.NORM_THREADS), f"layer_norm_forward_{pieces}", None
    if gradient is not None:
        blocks = min(kernels.NORM_RESIDENT * kernels.multiprocessors(x.device), -(-blocks // kernels.FEWEST_TURNS))
        name, parts = f"layer_norm_backward_{pieces}", x.new_empty(blocks, 2, channels, dtype=torch.float32)
    half = result.dtype if x.dtype == torch.float32 else x.dtype
    variant = BssVariant(half, wide, 2, x.dtype != half, result.dtype != half)
    arguments = _ARGUMENTS.pack(*at, 0 if parts is None else parts.data_ptr(), tokens, channels, lanes)
    kernels.launch(x.device, "layer_norm", variant, name, blocks, arguments)
    return parts


def forward(x: Tensor, gamma: Tensor, beta: Tensor, dtype: torch.dtype) -> Tensor:
    """LayerNorm of x in `dtype`; x (.., C) contiguous, gamma and beta (C,) float32. Computed in float32.

    float16 results beyond 65504 become +-65504, NaN stays.
    """
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    _launch(x, None, gamma, beta, out, out)
    return out


def backward(dout: Tensor, x: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, in its type, and of gamma and beta, float32; dout: of `forward`'s result, contiguous.

    Sums are made in a fixed order: two runs give the same bits.
    """
    dx = torch.empty_like(x)
    parts = _launch(x, dout, gamma, gamma, dx, dout)
    assert parts is not None
    dgamma, dbeta = parts.sum(0)
    return dx, dgamma, dbeta


class LayerNormFunction(torch.autograd.Function):
    """LayerNorm for autograd."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, dtype: torch.dtype) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, gamma)
        ctx.dtype = dtype
        return forward(x, gamma, beta, dtype)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma = ctx.saved_tensors
        if x.is_cuda:
            driver.ensure_context(x.device.index)  # autograd's thread may have none yet
        return *backward(dout.to(ctx.dtype).contiguous(), x, gamma), None


def apply(x: Tensor, gamma: Tensor, beta: Tensor, dtype: torch.dtype) -> Tensor:
    """LayerNorm of x (.., C) over its last axis, eps 1e-5, in `dtype`, differentiable once.

    gamma, beta: (C,) float32. Call it only where `fits(x, gamma, dtype)`.
    """
    gamma, beta = gamma.contiguous(), beta.contiguous()
    result: Tensor = LayerNormFunction.apply(x, gamma, beta, dtype)
    return result
