"""Forward and backward pass of one scan: allocation, the kernels' arguments, and their launches."""

from __future__ import annotations

import ctypes
import struct
from functools import lru_cache

import torch
from torch import Tensor

from nnunetv2_slicemamba.ops.cuda import low_rank, scan_plan
from nnunetv2_slicemamba.ops.cuda.driver import ensure_context, pack_arguments
from nnunetv2_slicemamba.ops.cuda.loading import load_kernels
from nnunetv2_slicemamba.ops.cuda.scan_plan import ScanPlan
from nnunetv2_slicemamba.ops.inputs import Gradients
from nnunetv2_slicemamba.ops.operator import ScanOperator
from nnunetv2_slicemamba.ops.orders import cached_orders

# ScanArgs in common.cuh: 24 pointers, 3 long strides, 6 strides, 11 counts, a stride
_ARGUMENTS = struct.Struct("24P3q6i11ii")


def current_stream(device: int) -> int:
    """Handle of the current stream of CUDA device `device`."""
    return torch.cuda.current_stream(device).cuda_stream


# what torch.compile's generated code and Triton use, and twenty times as fast; not a documented function
current_stream = getattr(torch._C, "_cuda_getCurrentRawStream", current_stream)


@lru_cache(maxsize=512)
def positions(sizes: tuple[int, ...], thickness: tuple[int, ...], device: torch.device) -> Tensor:
    """Scan orders (2n, L) as int32 on `device`, shared between callers.

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
    """The tensor itself if its last axis is dense, else a contiguous copy."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def _plan(x: Tensor, dt: Tensor, B: Tensor, C: Tensor, A: Tensor, rows: int, states: int) -> ScanPlan:
    """Layout of a scan. rows: the addresses of x, dt, D and, if there is one, dy, or-ed; states: those of B and C."""
    return scan_plan.make_plan(
        x.device.index,
        x.dtype,
        x.shape,
        A.shape,
        dt.stride()[:3],
        B.stride()[:3] + C.stride()[:3],
        rows % 16 == 0,
        states % (2 * x.element_size()) == 0,
    )


def empty_states(x: Tensor, A: Tensor, save: bool) -> Tensor:
    """Uninitialised array that carries states from the forward to the backward pass; empty unless `save`.

    Works on fake tensors too.
    """
    batch, length, channels = x.shape
    K, _, N = A.shape
    elements = scan_plan.saved_states(batch, length, channels, K, N, x.device.index or 0) if save else 0
    return x.new_empty(elements, dtype=scan_plan.SAVED_DTYPE[x.dtype])


def _pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _launch(plan: ScanPlan, part: str, launches: tuple[tuple[str, int], ...], arguments: ctypes.Array) -> None:
    """Launches kernels of `part`, given as (name, blocks), on the current stream of the plan's device."""
    if torch.cuda.current_device() != plan.device:
        with torch.cuda.device(plan.device):
            return _launch(plan, part, launches, arguments)
    kernels = load_kernels(part, plan.device, plan.variant, scan_plan.KERNELS[part])
    stream = current_stream(plan.device)
    for name, blocks in launches:
        kernels[name].launch(blocks, arguments, stream)


def _pack(
    plan: ScanPlan, pointers: tuple[int, ...], dt: Tensor, B: Tensor, C: Tensor, state_row: int = 0
) -> ctypes.Array:
    dt_stride, B_stride, C_stride = dt.stride(), B.stride(), C.stride()
    return pack_arguments(
        _ARGUMENTS.pack(
            *pointers,
            *(dt_stride[0], B_stride[0], C_stride[0]),
            *(dt_stride[1], dt_stride[2], B_stride[1], B_stride[2], C_stride[1], C_stride[2]),
            *plan.counts,
            state_row,
        )
    )


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
    """Result (batch, L, E) of one scan and the saved states, an empty tensor unless `save`; shapes as in `slice_scan`.

    x, dt, B, C share one type out of float32, float16, bfloat16; A, D and delta_bias are float32.
    """
    x, A, D = x.contiguous(), A.contiguous(), D.contiguous()
    bias = None if delta_bias is None else delta_bias.contiguous()
    B, C = dense_rows(B), dense_rows(C)
    dt = dense_rows(dt) if dt_weight is None else low_rank.expand_dt(dt, dt_weight)
    out, states = torch.empty_like(x), empty_states(x, A, save)
    if x.numel() == 0:
        return out, states
    x_at, dt_at, B_at, C_at, D_at = x.data_ptr(), dt.data_ptr(), B.data_ptr(), C.data_ptr(), D.data_ptr()
    plan = _plan(x, dt, B, C, A, x_at | dt_at | D_at, B_at | C_at)
    *offsets, size = plan.forward_scratch
    scratch = torch.empty(size, dtype=torch.uint8, device=x.device)
    start = scratch.data_ptr()
    y, chunk_state, chunk_delta = (start + offset for offset in offsets)
    inputs = (x_at, dt_at, B_at, C_at, 0, A.data_ptr(), _pointer(bias), D_at)
    order = positions(sizes, thickness, x.device).data_ptr()
    outputs = (order, y, states.data_ptr() if save else 0, chunk_state, chunk_delta, out.data_ptr())
    _launch(plan, "forward", plan.forward_launches, _pack(plan, inputs + outputs + (0,) * 10, dt, B, C))
    return out, states


def backward(
    grad_output: Tensor,
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

    grad_output: (batch, L, E). states: what `forward` saved. The rest as given to `forward`.
    """
    x, low = x.contiguous(), dt
    ensure_context(x.device.index)  # autograd's thread may have none yet, and cuBLAS warns about that
    dt = dense_rows(dt) if dt_weight is None else low_rank.expand_dt(dt, dt_weight)
    # An expanded dt is read for the last time where its gradient is written, so both share the memory.
    ddt = dt if dt_weight is not None else x.new_empty(dt.shape)
    dB, dC = x.new_empty(B.shape), x.new_empty(C.shape)
    dx, dA, dD, dbias = backward_into(ddt, dB, dC, grad_output, x, dt, B, C, A, D, delta_bias, states, sizes, thickness)
    if dt_weight is None:
        return dx, ddt, dB, dC, dA, dD, dbias, D.new_empty(0)
    d_low, d_weight = low_rank.reduce_dt(ddt, low, dt_weight)
    return dx, d_low, dB, dC, dA, dD, dbias, d_weight


def backward_into(
    ddt: Tensor,
    dB: Tensor,
    dC: Tensor,
    dy: Tensor,
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    A: Tensor,
    D: Tensor,
    delta_bias: Tensor | None,
    states: Tensor,
    sizes: tuple[int, ...],
    thickness: tuple[int, ...],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Writes the gradients of dt, B and C where the first three arguments say and returns those of x, A, D, delta_bias.

    ddt: (batch, L, K, E) contiguous, may be dt itself. dB, dC: (batch, L, K, N) with a dense last axis and the same
    even distance between rows, as slices of one contiguous (batch, L, K, M). dt: (batch, L, K, E), of full rank. The
    rest as given to `forward`; delta_bias's gradient is empty where there is none.
    """
    x, dy, A, D = x.contiguous(), dy.contiguous(), A.contiguous(), D.contiguous()
    bias = None if delta_bias is None else delta_bias.contiguous()
    dt, B, C = dense_rows(dt), dense_rows(B), dense_rows(C)
    dx, dA, dD = torch.empty_like(x), torch.empty_like(A), torch.empty_like(D)
    dbias = D.new_empty(0) if bias is None else torch.empty_like(bias)
    if x.numel() == 0:
        for gradient in (dA, dD, dbias):
            gradient.zero_()
        return dx, dA, dD, dbias
    x_at, dt_at, B_at, C_at, D_at = x.data_ptr(), dt.data_ptr(), B.data_ptr(), C.data_ptr(), D.data_ptr()
    dy_at = dy.data_ptr()
    plan = _plan(x, dt, B, C, A, x_at | dt_at | D_at | dy_at, B_at | C_at)
    *offsets, size = plan.backward_scratch
    scratch = torch.empty(size, dtype=torch.uint8, device=x.device)
    start = scratch.data_ptr()
    y, chunk_state, chunk_delta, *parts = (start + offset for offset in offsets)
    inputs = (x_at, dt_at, B_at, C_at, dy_at, A.data_ptr(), _pointer(bias), D_at)
    order = positions(sizes, thickness, x.device).data_ptr()
    outputs = (order, y, states.data_ptr(), chunk_state, chunk_delta, dx.data_ptr())
    gradients = (ddt.data_ptr(), dB.data_ptr(), dC.data_ptr(), *parts)
    small = (dA.data_ptr(), _pointer(bias) and dbias.data_ptr(), dD.data_ptr())
    arguments = _pack(plan, inputs + outputs + gradients + small, dt, B, C, dB.stride(2))
    _launch(plan, "backward", plan.backward_launches, arguments)
    return dx, dA, dD, dbias


OPERATOR = ScanOperator("cuda", "cuda", forward, backward, empty_states)
