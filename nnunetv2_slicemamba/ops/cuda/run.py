"""What happens in one forward or backward pass? Allocates, fills in the kernels' arguments and launches them."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from nnunetv2_slicemamba.ops.cuda import plan as planning
from nnunetv2_slicemamba.ops.cuda.cubins import PIECE, padded_states
from nnunetv2_slicemamba.ops.cuda.driver import pack_arguments
from nnunetv2_slicemamba.ops.cuda.plan import Plan
from nnunetv2_slicemamba.ops.orders import cached_orders

# ScanArgs in common.cuh: 24 pointers, 3 long strides, 6 strides, 11 counts, padding to 8 bytes
_ARGUMENTS = struct.Struct("24P3q6i11i4x")
FLOAT16_MAX = 65504.0
Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@contextmanager
def current_device(device: int) -> Iterator[int]:
    """Makes a CUDA device current, as launches need it, and yields its current stream's handle."""
    if torch.cuda.current_device() == device:
        yield torch.cuda.current_stream(device).cuda_stream
    else:
        with torch.cuda.device(device):
            yield torch.cuda.current_stream(device).cuda_stream


@lru_cache(maxsize=512)
def positions(sizes: tuple[int, ...], thickness: tuple[int, ...], device: torch.device) -> Tensor:
    """`scan_orders` as (2n, L) int32 on `device`, shared between callers.

    Raises RuntimeError if it is first needed while a CUDA graph is captured.
    """
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"the scan order of sizes {sizes}, thickness {thickness} is not on {device} yet and cannot be copied while "
            "a CUDA graph is captured; run the network once on this size before capturing it"
        )
    # made under inference_mode it could not be used in training afterwards
    with torch.inference_mode(False):
        return cached_orders(sizes, thickness, torch.device("cpu")).int().to(device)


def dense_rows(tensor: Tensor) -> Tensor:
    """`tensor` itself if its last axis is dense, else a contiguous copy."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def _aligned(tensor: Tensor, elements: int) -> bool:
    """Whether every row starts at a multiple of `elements` elements."""
    step = elements * tensor.element_size()
    return tensor.data_ptr() % step == 0 and all(
        stride % elements == 0 for stride, size in zip(tensor.stride()[:-1], tensor.shape, strict=False) if size > 1
    )


def _plan(x: Tensor, dt: Tensor, B: Tensor, C: Tensor, A: Tensor, D: Tensor, dy: Tensor | None = None) -> Plan:
    batch, length, channels = x.shape
    K, _, N = A.shape
    piece = 16 // x.element_size()
    wide_rows = (
        channels % PIECE == 0
        and D.data_ptr() % 16 == 0
        and all(_aligned(tensor, piece) for tensor in (x, dt, dy) if tensor is not None)
    )
    wide_states = N == padded_states(N) and _aligned(B, 2) and _aligned(C, 2)
    return planning.make_plan(x.device.index, x.dtype, batch, length, channels, K, N, wide_rows, wide_states)


def empty_states(x: Tensor, A: Tensor, save: bool) -> Tensor:
    """The uninitialised array that carries states from the forward to the backward pass; empty unless `save`.

    Works on fake tensors too.
    """
    batch, length, channels = x.shape
    K, _, N = A.shape
    elements = planning.saved_states(batch, length, channels, K, N, x.device.index or 0) if save else 0
    return x.new_empty(elements, dtype=planning.SAVED_DTYPE[x.dtype])


def _pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _pack(plan: Plan, pointers: tuple[int, ...], dt: Tensor, B: Tensor, C: Tensor) -> ctypes.Array:
    return pack_arguments(
        _ARGUMENTS.pack(
            *pointers,
            *(dt.stride(0), B.stride(0), C.stride(0)),
            *dt.stride()[1:3],
            *B.stride()[1:3],
            *C.stride()[1:3],
            *(plan.batch, plan.L, plan.E, plan.K, plan.N),
            *(plan.channel_blocks, plan.stages, plan.chunks, plan.chunk_stages),
            *(plan.param_blocks, plan.state_blocks),
        )
    )


def expand_dt(dt: Tensor, dt_weight: Tensor) -> Tensor:
    """(batch, L, K, E) from dt (batch, L, K, R) and dt_weight (K, E, R), in dt's type."""
    batch, length, K, rank = dt.shape
    channels = dt_weight.shape[1]
    full = dt.new_empty(batch, length, K, channels)
    # written in place, one matrix per direction; `out` also keeps autocast away
    torch.bmm(
        dt.reshape(batch * length, K, rank).transpose(0, 1),
        dt_weight.to(dt.dtype).transpose(1, 2),
        out=full.view(batch * length, K, channels).transpose(0, 1),
    )
    return full


def _reduce_dt(ddt: Tensor, dt: Tensor, dt_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of dt (batch, L, K, R) and of dt_weight (K, E, R) from that of their product (batch, L, K, E)."""
    batch, length, K, rank = dt.shape
    tokens, channels = batch * length, dt_weight.shape[1]
    by_direction = ddt.view(tokens, K, channels).transpose(0, 1)
    d_low = dt.new_empty(batch, length, K, rank)
    weight = dt_weight.to(dt.dtype)
    torch.bmm(by_direction, weight, out=d_low.view(tokens, K, rank).transpose(0, 1))
    if dt.dtype == torch.float16:  # as the kernels do: large sums saturate, NaN stays
        d_low.clamp_(-FLOAT16_MAX, FLOAT16_MAX)
    low = dt.reshape(tokens, K, rank).transpose(0, 1)
    d_weight = torch.empty(dt_weight.shape, dtype=dt.dtype, device=dt.device)
    torch.bmm(by_direction.transpose(1, 2), low, out=d_weight)
    if dt.dtype == torch.float16:
        d_weight.clamp_(-FLOAT16_MAX, FLOAT16_MAX)
    return d_low, d_weight.to(dt_weight.dtype)


def forward(
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    A: Tensor,
    D: Tensor,
    delta_bias: Tensor | None,
    dt_weight: Tensor | None,
    sizes: tuple[int, ...],
    thickness: tuple[int, ...],
    save: bool,
) -> tuple[Tensor, Tensor]:
    """(out (batch, L, E), saved states or, unless `save`, an empty tensor) of one scan; shapes as in `slice_scan`.

    x, dt, B, C share one type out of float32, float16, bfloat16; A, D and delta_bias are float32.
    """
    x, A, D = x.contiguous(), A.contiguous(), D.contiguous()
    bias = None if delta_bias is None else delta_bias.contiguous()
    B, C = dense_rows(B), dense_rows(C)
    dt = dense_rows(dt) if dt_weight is None else expand_dt(dt, dt_weight)
    out, states = torch.empty_like(x), empty_states(x, A, save)
    if x.numel() == 0:
        return out, states
    plan = _plan(x, dt, B, C, A, D)
    *offsets, size = plan.forward_scratch
    scratch = torch.empty(size, dtype=torch.uint8, device=x.device)
    y, chunk_state, chunk_delta = (scratch.data_ptr() + offset for offset in offsets)
    inputs = (x.data_ptr(), dt.data_ptr(), B.data_ptr(), C.data_ptr(), 0, A.data_ptr(), _pointer(bias), D.data_ptr())
    order = positions(sizes, thickness, x.device).data_ptr()
    outputs = (order, y, states.data_ptr() if save else 0, chunk_state, chunk_delta, out.data_ptr())
    arguments = _pack(plan, inputs + outputs + (0,) * 10, dt, B, C)
    with current_device(plan.device) as stream:
        run = planning.kernels("forward", plan)
        if plan.chunks > 1:
            run["forward_chunk"].launch(plan.chunk_blocks, arguments, stream)
            run["forward_carry"].launch(plan.carry_blocks, arguments, stream)
        run["forward_scan"].launch(plan.scan_blocks, arguments, stream)
        run["forward_combine"].launch(plan.combine_blocks, arguments, stream)
    return out, states


def backward(
    dy: Tensor,
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    A: Tensor,
    D: Tensor,
    delta_bias: Tensor | None,
    dt_weight: Tensor | None,
    states: Tensor,
    sizes: tuple[int, ...],
    thickness: tuple[int, ...],
) -> Gradients:
    """Gradients of (x, dt, B, C, A, D, delta_bias, dt_weight), the last two empty where there is none.

    dy: (batch, L, E), gradient of the output. states: what `forward` saved. The rest as given to `forward`.
    """
    x, dy, A, D = x.contiguous(), dy.contiguous(), A.contiguous(), D.contiguous()
    bias = None if delta_bias is None else delta_bias.contiguous()
    B, C, low = dense_rows(B), dense_rows(C), dt
    dt = dense_rows(dt) if dt_weight is None else expand_dt(dt, dt_weight)
    dx, dA, dD = torch.empty_like(x), torch.empty_like(A), torch.empty_like(D)
    dbias = D.new_empty(0) if bias is None else torch.empty_like(bias)
    ddt, dB, dC = x.new_empty(dt.shape), x.new_empty(B.shape), x.new_empty(C.shape)
    if x.numel() == 0:
        for gradient in (dA, dD, dbias):
            gradient.zero_()
    else:
        plan = _plan(x, dt, B, C, A, D, dy)
        *offsets, size = plan.backward_scratch
        scratch = torch.empty(size, dtype=torch.uint8, device=x.device)
        y, chunk_state, chunk_delta, *parts = (scratch.data_ptr() + offset for offset in offsets)
        inputs = (x, dt, B, C, dy, A, bias, D, positions(sizes, thickness, x.device))
        outputs = (y, states.data_ptr(), chunk_state, chunk_delta, dx.data_ptr(), *map(_pointer, (ddt, dB, dC)), *parts)
        pointers = (*map(_pointer, inputs), *outputs, *map(_pointer, (dA, None if bias is None else dbias, dD)))
        arguments = _pack(plan, pointers, dt, B, C)
        with current_device(plan.device) as stream:
            run = planning.kernels("backward", plan)
            if plan.chunks > 1:
                run["backward_chunk"].launch(plan.chunk_blocks, arguments, stream)
                run["backward_carry"].launch(plan.carry_blocks, arguments, stream)
            run["backward_scan"].launch(plan.scan_blocks, arguments, stream)
            run["backward_finish"].launch(
                plan.param_blocks + plan.state_blocks + plan.combine_blocks, arguments, stream
            )
    if dt_weight is None:
        return dx, ddt, dB, dC, dA, dD, dbias, D.new_empty(0)
    d_low, d_weight = _reduce_dt(ddt, low, dt_weight)
    return dx, d_low, dB, dC, dA, dD, dbias, d_weight
