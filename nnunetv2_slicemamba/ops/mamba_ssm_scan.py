"""The mamba_ssm backend: its compiled CUDA kernel, the directions as groups of channels of one scan."""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from nnunetv2_slicemamba.ops.compiling import not_compiled
from nnunetv2_slicemamba.ops.inputs import expand_dt, without_autocast
from nnunetv2_slicemamba.ops.orders import cached_inverse_orders, cached_orders


@lru_cache(maxsize=1)
def _import_problem() -> str | None:
    # From 2.3 on mamba_ssm installs without its compiled scan unless asked for it, and a compiled one fails to load
    # beside another PyTorch than it was built for, so only an import that works counts.
    for module in ("selective_scan_cuda", "mamba_ssm.ops.selective_scan_interface"):
        try:
            importlib.import_module(module)
        except ImportError as error:
            return (
                f"{module} cannot be imported ({error}); it comes with mamba_ssm, from 2.3 on only if that was "
                "installed with MAMBA_KEEP_CUDA_BUILD=TRUE"
            )
    return None


def unavailable_reason(device: torch.device, dtype: torch.dtype) -> str | None:
    """Reason why mamba_ssm's kernel cannot run on `device` with tokens of type `dtype`, None if it can."""
    if device.type != "cuda":
        return f"mamba_ssm's kernel needs a CUDA device, not {device.type}"
    if dtype == torch.float64:
        return "mamba_ssm's kernel computes in float32, not in float64"
    return _import_problem()


class _ExpandDt(torch.autograd.Function):
    """The function `expand_dt`, whose gradients are float32 even if `.backward()` is called under autocast."""

    @staticmethod
    def forward(ctx: Any, dt: Tensor, dt_weight: Tensor) -> Tensor:
        ctx.save_for_backward(dt, dt_weight)
        return expand_dt(dt, dt_weight)

    @staticmethod
    @without_autocast
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        dt, dt_weight = ctx.saved_tensors
        for_dt, for_weight = ctx.needs_input_grad
        return (
            torch.einsum("blke,ker->blkr", grad_output, dt_weight) if for_dt else None,
            torch.einsum("blke,blkr->ker", grad_output, dt) if for_weight else None,
        )


@not_compiled
def scan(
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    A: Tensor,
    D: Tensor,
    sizes: tuple[int, ...],
    thickness: tuple[int, ...],
    delta_bias: Tensor,
    dt_weight: Tensor | None,
) -> Tensor:
    """The scan `slice_scan` for checked arguments, (batch, L, E) float32. Makes K reordered copies of x and dt."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    x, dt, B, C, A, D, delta_bias = (t.float() for t in (x, dt, B, C, A, D, delta_bias))
    if dt_weight is not None:
        dt = _ExpandDt.apply(dt, dt_weight.float())
    batch, length, channels = x.shape
    K = A.shape[0]
    orders = cached_orders(sizes, thickness, x.device)
    inverse = cached_inverse_orders(sizes, thickness, x.device)
    directions = torch.arange(K, device=x.device).unsqueeze(1)

    def in_order(tensor: Tensor) -> Tensor:
        """Copy in scan order: (batch, L, K, *) in raster order -> (batch, K, *, L)."""
        return tensor[:, orders, directions].transpose(2, 3).contiguous()

    u = x[:, orders].transpose(2, 3)  # (batch, K, E, L)
    y = selective_scan_fn(
        u.reshape(batch, K * channels, length),
        in_order(dt).view(batch, K * channels, length),
        A.reshape(K * channels, -1),
        in_order(B),
        in_order(C),
        D.reshape(-1),
        delta_bias=delta_bias.reshape(-1),
        delta_softplus=True,
    )
    y = y.view(batch, K, channels, length).transpose(2, 3)
    return y[:, directions, inverse].sum(1)
