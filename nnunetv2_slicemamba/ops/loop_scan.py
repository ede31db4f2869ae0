"""The scan of an exported network: one loop over the tokens, in the form that the format has for loops.

torch.export (and through it ONNX) takes PyTorch's `scan` operator, whose body becomes a subgraph; TorchScript takes a
scripted loop. All directions advance together. Forward only. Recurrence: S6, Gu & Dao 2023.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunetv2_slicemamba.ops.dtypes import recurrence_dtype
from nnunetv2_slicemamba.ops.inputs import expand_dt
from nnunetv2_slicemamba.ops.orders import cached_inverse_orders, cached_orders


def is_exporting() -> bool:
    """True while torch.export (not its strict form) or torch.jit.trace records what runs."""
    # PyTorch 2.6 and older have no such question
    asked = getattr(torch.compiler, "is_exporting", None)
    # PyTorch 2.11 says yes to torch.compile, too
    exports = asked is not None and bool(asked()) and not torch.compiler.is_dynamo_compiling()
    return torch.jit.is_tracing() or exports


def _orders(sizes: tuple[int, ...], thickness: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Orders and their inverses (K, L) as constants: made while recording they would be stand-ins without values.

    Neither a trace nor torch.export's modes reach into another thread.
    """
    arguments = sizes, thickness, device
    with ThreadPoolExecutor(1) as other:
        orders, inverse = (other.submit(make, *arguments).result() for make in (cached_orders, cached_inverse_orders))
    return orders, inverse


def loop_scan(
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
    """The scan `slice_scan` for checked arguments as one loop; returns (batch, L, E) in the type of the recurrence."""
    dtype = recurrence_dtype(x.dtype)
    x, dt, B, C, A, D = (tensor.to(dtype) for tensor in (x, dt, B, C, A, D))
    delta = F.softplus(expand_dt(dt, None if dt_weight is None else dt_weight.to(dtype)) + delta_bias.to(dtype))
    orders, inverse = _orders(sizes, thickness, x.device)
    directions = range(len(orders))
    tokens = torch.stack([x[:, orders[k]] for k in directions], 2)  # (batch, L, K, E)
    delta, B, C = (torch.stack([t[:, orders[k], k] for k in directions], 2) for t in (delta, B, C))
    h = x.new_zeros(x.shape[0], len(orders), x.shape[2], A.shape[2])
    steps = tuple(tensor.transpose(0, 1) for tensor in (tokens, delta, B, C))  # tokens first
    visited = _scripted_loop(h, A, *steps) if torch.jit.is_tracing() else _operator_loop(h, A, *steps)
    y = (visited + D * steps[0]).transpose(0, 1)
    return torch.stack([y[:, inverse[k], k] for k in directions]).sum(0)


def _operator_loop(h: Tensor, A: Tensor, x: Tensor, delta: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Results (L, batch, K, E) of the recurrence by PyTorch's `scan` operator; arguments as in `_loop`."""
    from torch._higher_order_ops.scan import scan

    def step(h: Tensor, token: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        x_t, delta_t, B_t, C_t = token
        h = torch.exp(delta_t[..., None] * A) * h + (delta_t * x_t)[..., None] * B_t[:, :, None, :]
        return h.clone(), (h * C_t[:, :, None, :]).sum(-1)

    result: Any = scan(step, h, (x, delta, B, C))
    visited: Tensor = result[1]
    return visited


def _loop(h: Tensor, A: Tensor, x: Tensor, delta: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Results (L, batch, K, E) of the recurrence as a loop for TorchScript.

    h: (batch, K, E, N). x, delta: (L, batch, K, E). B, C: (L, batch, K, N).
    """
    visited = torch.empty_like(x)
    for t in range(x.shape[0]):
        h = torch.exp(delta[t].unsqueeze(-1) * A) * h + (delta[t] * x[t]).unsqueeze(-1) * B[t].unsqueeze(2)
        visited[t] = (h * C[t].unsqueeze(2)).sum(-1)
    return visited


@lru_cache(maxsize=1)
def _script() -> Any:
    return torch.jit.script(_loop)


def _scripted_loop(*arguments: Tensor) -> Tensor:
    visited: Tensor = _script()(*arguments)
    return visited
