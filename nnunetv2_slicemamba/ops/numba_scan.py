"""The numba backend: the scan on a CPU by compiled kernels, spread over threads, with their own backward."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from math import e, log2
from typing import Any

import torch
from torch import Tensor

from nnunetv2_slicemamba.ops.inputs import Gradients
from nnunetv2_slicemamba.ops.operator import ScanOperator
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


def unavailable_reason(device: torch.device, dtype: torch.dtype) -> str | None:
    """Reason why the numba kernels cannot run on `device` with tokens of type `dtype`, None if they can."""
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
    """One-dimensional NumPy views, or copies of tensors that are not contiguous."""
    return [tensor.reshape(-1).numpy() for tensor in tensors]


def _sum_up(tensors: list[Tensor]) -> Tensor:
    """The sum in the first tensor's memory."""
    for tensor in tensors[1:]:
        tensors[0].add_(tensor)
    return tensors[0]


def _by_direction(tensor: Tensor) -> Tensor:
    """View (K, batch * L, *) of (batch, L, K, *)."""
    return tensor.flatten(0, 1).transpose(0, 1)


def _full_rank(dt: Tensor, weight: Tensor | None) -> Tensor:
    """Step sizes (batch, L, K, E) as `expand_dt` gives them, without a second copy in another order."""
    if weight is None:
        return dt
    full = dt.new_empty(*dt.shape[:3], weight.shape[1])
    for low_rank, projection, out in zip(_by_direction(dt), weight, _by_direction(full), strict=True):
        torch.mm(low_rank, projection.t(), out=out)
    return full


def empty_states(x: Tensor, A: Tensor, save: bool) -> Tensor:
    """The uninitialised array that carries states from the forward to the backward pass; empty unless `save`."""
    from nnunetv2_slicemamba.ops import numba_kernels

    if not save:
        return x.new_empty(0)
    batch, length, channels = x.shape
    K, _, N = A.shape
    blocks = -(-channels // numba_kernels.WIDTH)
    return x.new_empty(batch, -(-length // numba_kernels.CHUNK), K, blocks, N * numba_kernels.WIDTH)


def forward(
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    A: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    dt_weight: Tensor | None,
    sizes: tuple[int, ...],
    thickness: tuple[int, ...],
    save: bool,
) -> tuple[Tensor, Tensor]:
    """Result (batch, L, E) of the scan and the saved states, an empty tensor unless `save`; all float32."""
    from nnunetv2_slicemamba.ops import numba_kernels

    batch, _, channels = x.shape
    K, _, N = A.shape
    states = empty_states(x, A, save)
    orders = cached_orders(sizes, thickness, x.device)
    A2 = A.transpose(1, 2).mul(log2(e)).contiguous()
    arrays = _flat(x, _full_rank(dt, dt_weight), delta_bias, B, C, A2)
    outs = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(K // 2)]
    tasks: list[Callable[[], None]] = []
    for image, axis, directions, _, some in _parts(batch, K, -(-channels // numba_kernels.WIDTH)):
        outputs = _flat(outs[axis], states)
        counts = (channels, N, image, directions, some)
        tasks.append(partial(numba_kernels.forward, *arrays, orders.numpy(), *outputs, *counts))
    _run(tasks)
    return _sum_up(outs).addcmul_(x, D.sum(0)), states


@torch.autocast("cpu", enabled=False)  # `.backward()` may be called under it
def backward(
    grad_output: Tensor,
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    A: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    dt_weight: Tensor | None,
    states: Tensor,
    sizes: tuple[int, ...],
    thickness: tuple[int, ...],
) -> Gradients:
    """Gradients of (x, dt, B, C, A, D, delta_bias, dt_weight), the last empty where it is None.

    grad_output: (batch, L, E). states: what `forward` saved. The rest as given to `forward`.
    """
    from nnunetv2_slicemamba.ops import numba_kernels

    grad_output = grad_output.contiguous()
    batch, K, blocks = x.shape[0], A.shape[0], states.shape[3]
    orders = cached_orders(sizes, thickness, x.device)
    full = _full_rank(dt, dt_weight)
    A2 = A.transpose(1, 2).mul(log2(e)).contiguous()
    arrays = _flat(grad_output, x, full, delta_bias, B, C, A2)
    gx = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(K // 2)]
    gB, gC = (
        [torch.empty_like(B, memory_format=torch.contiguous_format) for _ in range(min(blocks, _CHANNEL_PARTS))]
        for _ in range(2)
    )
    gdt, gA = torch.empty_like(full), A2.new_empty(batch, *A2.shape)
    tasks: list[Callable[[], None]] = []
    for image, axis, directions, part, some in _parts(batch, K, blocks):
        outputs = _flat(states, gx[axis], gdt, gB[part], gC[part], gA)
        counts = (x.shape[2], A.shape[2], image, directions, some)
        tasks.append(partial(numba_kernels.backward, *arrays, orders.numpy(), *outputs, *counts))
    _run(tasks)
    gbias, gweight = gdt.sum((0, 1)), D.new_empty(0)
    if dt_weight is not None:
        rows = _by_direction(gdt)
        gweight = rows.transpose(1, 2) @ _by_direction(dt)
        gdt = (rows @ dt_weight).transpose(0, 1).reshape(dt.shape).contiguous()
    return (
        _sum_up(gx).addcmul_(grad_output, D.sum(0)),
        gdt,
        _sum_up(gB),
        _sum_up(gC),
        gA.sum(0).transpose(1, 2).contiguous(),
        (grad_output * x).sum((0, 1)).expand_as(D).contiguous(),
        gbias,
        gweight,
    )


_OPERATOR = ScanOperator("numba", "cpu", forward, backward, empty_states)


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
    """The scan `slice_scan` for checked arguments on the CPU; returns (batch, L, E) float32."""
    tensors = (x, dt, B, C, A, D, delta_bias, dt_weight)
    inputs = [None if t is None else t.to(torch.float32).contiguous() for t in tensors]
    return _OPERATOR.apply(*inputs, sizes, thickness)
