"""How does the scan run fast on a CPU? Kernels compiled by numba, spread over threads, with their own backward."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from math import e, log2
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nnunetv2_slicemamba.ops.inputs import without_autocast
from nnunetv2_slicemamba.ops.orders import cached_orders

# Parts into which the channels are cut for the threads. Every part holds its own sums over its channels (the gradients
# of B and C), so there are few; and the number must not depend on the threads, or the sums' rounding would.
_CHANNEL_PARTS = 4


@lru_cache(maxsize=1)
def _import_problem() -> str | None:
    try:
        import numba  # noqa: F401
    except Exception as error:  # numba raises more than ImportError beside a Python or a NumPy that it does not know
        return f"numba cannot be imported ({type(error).__name__}: {error}); install numba for a faster CPU backend"
    return None


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the numba kernels cannot run on `device` with tokens of type `dtype`; None if they can."""
    if device.type != "cpu":
        return f"the numba kernels run on the CPU, not on {device.type}"
    if dtype == torch.float64:
        return "the numba kernels compute in float32, not in float64"
    return _import_problem()


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="slicemamba")


# Not numba's own threads: they do not survive the forks of nnU-Net's data augmentation, and ours start anew after one.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _run(tasks: list[Callable[[], None]]) -> None:
    """Runs the tasks, which must write to different places, on as many threads as PyTorch uses."""
    threads = min(torch.get_num_threads(), len(tasks))
    if threads <= 1:
        for task in tasks:
            task()
    else:
        for future in [_pool(threads).submit(task) for task in tasks]:
            future.result()


def _parts(
    batch: int, directions: int, blocks: int
) -> Iterator[tuple[int, int, tuple[int, int], int, tuple[int, int]]]:
    """Image; number and range of a travel axis's directions; number and range of a part of the channel blocks."""
    parts = min(blocks, _CHANNEL_PARTS)
    for image in range(batch):
        for axis in range(directions // 2):
            for part in range(parts):
                some = (part * blocks // parts, (part + 1) * blocks // parts)
                yield image, axis, (2 * axis, 2 * axis + 2), part, some


def _flat(*tensors: Tensor) -> list[Any]:
    """One-dimensional NumPy views."""
    return [tensor.view(-1).numpy() for tensor in tensors]


def _sum_up(tensors: list[Tensor]) -> Tensor:
    """The sum in the first tensor's memory."""
    for tensor in tensors[1:]:
        tensors[0].add_(tensor)
    return tensors[0]


def _by_direction(tensor: Tensor) -> Tensor:
    """(K, batch * L, *) view of (batch, L, K, *)."""
    return tensor.flatten(0, 1).transpose(0, 1)


def _full_rank(dt: Tensor, weight: Tensor | None) -> Tensor:
    """(batch, L, K, E); like `expand_dt`, without a second copy in another order."""
    if weight is None:
        return dt
    full = dt.new_empty(*dt.shape[:3], weight.shape[1])
    for low_rank, projection, out in zip(_by_direction(dt), weight, _by_direction(full), strict=True):
        torch.mm(low_rank, projection.t(), out=out)
    return full


class _NumbaScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, orders: Tensor, keep: bool, *inputs: Any) -> Tensor:
        from nnunetv2_slicemamba.ops import numba_kernels

        x, dt, B, C, A, D, bias, weight = inputs
        batch, length, channels = x.shape
        K, _, N = A.shape
        blocks = -(-channels // numba_kernels.WIDTH)
        shape = (batch, -(-length // numba_kernels.CHUNK), K, blocks, N * numba_kernels.WIDTH)
        kept = x.new_empty(shape if keep else (0,) * len(shape))
        A2 = A.transpose(1, 2).mul(log2(e)).contiguous()
        arrays = _flat(x, _full_rank(dt, weight), bias, B, C, A2)
        outs = [torch.empty_like(x) for _ in range(K // 2)]
        tasks: list[Callable[[], None]] = []
        for image, axis, directions, _, some in _parts(batch, K, blocks):
            outputs = _flat(outs[axis], kept)
            sizes = (channels, N, image, directions, some)
            tasks.append(partial(numba_kernels.forward, *arrays, orders.numpy(), *outputs, *sizes))
        _run(tasks)
        ctx.save_for_backward(*inputs, kept)
        ctx.orders = orders
        return _sum_up(outs).addcmul_(x, D.sum(0))

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        from nnunetv2_slicemamba.ops import numba_kernels

        *inputs, kept = ctx.saved_tensors
        x, dt, B, C, A, D, bias, weight = inputs
        batch, K, blocks = x.shape[0], A.shape[0], kept.shape[3]
        grad = grad.contiguous()
        full = _full_rank(dt, weight)
        A2 = A.transpose(1, 2).mul(log2(e)).contiguous()
        arrays = _flat(grad, x, full, bias, B, C, A2)
        gx = [torch.empty_like(x) for _ in range(K // 2)]
        gB, gC = ([torch.empty_like(B) for _ in range(min(blocks, _CHANNEL_PARTS))] for _ in range(2))
        gdt, gA = torch.empty_like(full), A2.new_empty(batch, *A2.shape)
        tasks: list[Callable[[], None]] = []
        for image, axis, directions, part, some in _parts(batch, K, blocks):
            outputs = _flat(kept, gx[axis], gdt, gB[part], gC[part], gA)
            sizes = (x.shape[2], A.shape[2], image, directions, some)
            tasks.append(partial(numba_kernels.backward, *arrays, ctx.orders.numpy(), *outputs, *sizes))
        _run(tasks)
        gbias, gweight = gdt.sum((0, 1)), None
        if weight is not None:
            rows = _by_direction(gdt)
            gweight = rows.transpose(1, 2) @ _by_direction(dt)
            gdt = (rows @ weight).transpose(0, 1).reshape(dt.shape)
        results = (
            _sum_up(gx).addcmul_(grad, D.sum(0)),
            gdt,
            _sum_up(gB),
            _sum_up(gC),
            gA.sum(0).transpose(1, 2),
            (grad * x).sum((0, 1)).expand_as(D).contiguous(),
            gbias,
            gweight,
        )
        needed = ctx.needs_input_grad[2:]
        return None, None, *(result if need else None for result, need in zip(results, needed, strict=True))


@torch.compiler.disable
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
    """`slice_scan` for checked arguments on the CPU; returns (batch, L, E) float32."""
    tensors = (x, dt, B, C, A, D, delta_bias, dt_weight)
    inputs = [None if t is None else t.to(torch.float32).contiguous() for t in tensors]
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
    return _NumbaScan.apply(cached_orders(sizes, thickness, x.device), keep, *inputs)
