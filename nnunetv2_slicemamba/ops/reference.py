"""The scan written down plainly: what every backend must compute, the oracle of the tests (S6: Gu & Dao 2023)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunetv2_slicemamba.ops.dtypes import recurrence_dtype
from nnunetv2_slicemamba.ops.inputs import expand_dt
from nnunetv2_slicemamba.ops.orders import cached_orders


def slice_scan_reference(
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    A: Tensor,
    D: Tensor,
    sizes: tuple[int, ...],
    thickness: tuple[int, ...],
    delta_bias: Tensor | None = None,
    dt_weight: Tensor | None = None,
) -> Tensor:
    """The sum of the K directions' selective scans, one token after another; autograd runs through every step.

    Shapes as in `slice_scan`: x (batch, L, E), dt (batch, L, K, E or R), B, C (batch, L, K, N), A (K, E, N), D (K, E).
    Returns (batch, L, E) in raster order, float64 if x is, else float32. Slow, and keeps every state for the
    backward.
    """
    dtype = recurrence_dtype(x.dtype)
    x, dt, B, C, A, D = (tensor.to(dtype) for tensor in (x, dt, B, C, A, D))
    dt = expand_dt(dt, None if dt_weight is None else dt_weight.to(dtype))
    if delta_bias is not None:
        dt = dt + delta_bias.to(dtype)
    delta = F.softplus(dt)

    out = torch.zeros_like(x)
    for k, order in enumerate(cached_orders(sizes, thickness, x.device)):
        h = x.new_zeros(x.shape[0], x.shape[2], A.shape[2])  # (batch, E, N)
        visited = []
        in_order = (x[:, order], delta[:, order, k], B[:, order, k], C[:, order, k])
        for x_t, delta_t, B_t, C_t in zip(*(tensor.unbind(1) for tensor in in_order), strict=True):
            h = torch.exp(delta_t[..., None] * A[k]) * h + (delta_t * x_t)[..., None] * B_t[:, None, :]
            visited.append((h * C_t[:, None, :]).sum(-1) + D[k] * x_t)
        out = out.index_add(1, order, torch.stack(visited, dim=1))
    return out
