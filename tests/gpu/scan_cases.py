"""Inputs for the tests of GPU scans and a float64 oracle that is fast enough for long sequences."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunetv2_slicemamba.ops.orders import scan_orders

NAMES = ("x", "dt", "B", "C", "A", "D", "delta_bias", "dt_weight")


def make_inputs(
    batch: int,
    sizes: tuple[int, ...],
    E: int,
    N: int,
    dtype: torch.dtype = torch.float32,
    rank: int | None = None,
    scale: float = 1.0,
    bias: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Leaf tensors on the GPU by name, all but A, D and delta_bias in `dtype`.

    scale multiplies x, dt, B and C. bias: delta_bias's value, None for values around -2 that keep a memory of some
    hundred tokens. rank: low rank of dt, None for full rank.
    """
    generator = torch.Generator("cuda").manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device="cuda")

    L, K = prod(sizes), 2 * len(sizes)
    tensors = {
        "x": (scale * normal(batch, L, E)).to(dtype),
        "dt": (scale * normal(batch, L, K, rank or E)).to(dtype),
        "B": (scale * normal(batch, L, K, N)).to(dtype),
        "C": (scale * normal(batch, L, K, N)).to(dtype),
        "A": -torch.exp(normal(K, E, N)),
        "D": normal(K, E),
        "delta_bias": normal(K, E) - 2 if bias is None else torch.full((K, E), bias, device="cuda"),
        "dt_weight": None if rank is None else (normal(K, E, rank) / rank**0.5).to(dtype),
    }
    return {name: None if t is None else t.requires_grad_() for name, t in tensors.items()}


def oracle(
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
    """The scan in float64 through log2(L) doublings, so that autograd stays usable at 100,000 tokens."""
    if dt_weight is not None:
        dt = torch.einsum("blkr,ker->blke", dt, dt_weight)
    delta = F.softplus(dt if delta_bias is None else dt + delta_bias)
    out = torch.zeros_like(x)
    for k, order in enumerate(scan_orders(sizes, thickness).to(x.device)):
        step, seen = delta[:, order, k], x[:, order]
        decay = torch.exp(step[..., None] * A[k])
        h = (step * seen)[..., None] * B[:, order, k, None, :]
        reach = 1
        while reach < len(order):
            h = torch.cat([h[:, :reach], h[:, reach:] + decay[:, reach:] * h[:, :-reach]], dim=1)
            decay = torch.cat([decay[:, :reach], decay[:, reach:] * decay[:, :-reach]], dim=1)
            reach *= 2
        y = (h * C[:, order, k, None, :]).sum(-1) + D[k] * seen
        out = out.index_add(1, order, y)
    return out


def run(scan, inputs: dict[str, Any], sizes, thickness, dy: Tensor) -> dict[str, Tensor]:
    """The output and every gradient, by name, of one call of `scan` on detached copies of `inputs`."""
    leaves = {name: None if t is None else t.detach().requires_grad_() for name, t in inputs.items()}
    out = call(scan, leaves, sizes, thickness)
    out.backward(dy.to(out.dtype))
    given = {name: t for name, t in leaves.items() if t is not None}
    results = {name: torch.zeros_like(t) if t.grad is None else t.grad for name, t in given.items()}
    return {"out": out.detach(), **results}


def call(scan, inputs: dict[str, Any], sizes, thickness) -> Tensor:
    """Result of scan(...) with the tensors of `inputs` in their places."""
    six = [inputs[name] for name in NAMES[:6]]
    return scan(*six, sizes, thickness, inputs["delta_bias"], inputs["dt_weight"])


def upcast(inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs with their values in float64."""
    return {name: None if t is None else t.detach().double().requires_grad_() for name, t in inputs.items()}


def relative_error(value: Tensor, expected: Tensor) -> float:
    """The larger of |value - expected| / |expected| in the Euclidean and in the maximum norm; inf for NaN."""
    difference, expected = value.double() - expected.double(), expected.double()
    errors = [
        (norm(difference) / norm(expected).clamp_min(1e-30)).item() for norm in (torch.linalg.vector_norm, _largest)
    ]
    return max(float("inf") if error != error else error for error in errors)


def _largest(t: Tensor) -> Tensor:
    return t.abs().max()
