"""Kernels around the scan, one function each: it works out the grid, packs the arguments and launches."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from nnunetv2_slicemamba.ops.cuda import driver
from nnunetv2_slicemamba.ops.cuda.cubins import PIECE, BssVariant
from nnunetv2_slicemamba.ops.cuda.loading import device_numbers, load_kernels
from nnunetv2_slicemamba.ops.cuda.scan import current_stream

CONV_THREADS, CHANNELS, STRIPS, STRIP = 128, 64, 16, 4  # as in convolution.cuh
TILE_STRIPS = 4  # strips beside each other in a tile where rows are long enough
CONV_RESIDENT = 4  # blocks of conv_grad_output per multiprocessor
NORM_THREADS, NORM_PIECES = 256, 2
NORM_RESIDENT = 2
FEWEST_TURNS = 4  # sets of tokens per block of norm_backward: every block writes a row of partial sums
COPY_THREADS, SEGMENTS = 256, 10
CAST, NEGATIVE_EXP, WIDEN, PRODUCTS, SUM, SUM_HALF = range(6)  # bss_copy.cu's kinds
MAX_CHANNELS = NORM_THREADS * NORM_PIECES * PIECE

_CONV = struct.Struct("6P2I2i4i2II4x")  # ConvArgs
_NORM = struct.Struct("9Pq4i")  # NormArgs
_SEGMENT = struct.Struct("3Pq3Ii4I")
_INSTANCE_NORM_NAMES = (
    *("statistics", "normalise", "forward_whole"),
    *("gradient_sums", "gradient_input", "backward_whole", "gradient_parameters"),
)
_NORM_NAMES = ("forward_1", "forward_2", "backward_1", "backward_2")
KERNELS: dict[str, dict[str, tuple[int, str | None]]] = {  # name -> (threads, no shared memory)
    "conv": dict.fromkeys(("conv_forward", "conv_grad_output", "conv_grad_input"), (CONV_THREADS, None)),
    "norm": {f"norm_{name}": (NORM_THREADS, None) for name in _NORM_NAMES},
    "copy": {"copy_segments": (COPY_THREADS, None)},
    "layer_norm": {f"layer_norm_{name}": (NORM_THREADS, None) for name in _NORM_NAMES},
    "instance_norm": {f"instance_norm_{name}": (NORM_THREADS, None) for name in _INSTANCE_NORM_NAMES},
}


def launch(device: torch.device, part: str, variant: BssVariant, name: str, blocks: int, arguments: bytes) -> None:
    """Queues `blocks` blocks of kernel `name` of `part` (a key of BSS_SOURCES) on the device's current stream.

    arguments: the kernel's one struct. The first call for a variant compiles it or reads it from the disk cache.
    RuntimeError if the compiler or the driver refuses.
    """
    index = device.index
    if torch.cuda.current_device() != index:
        with torch.cuda.device(device):
            return launch(device, part, variant, name, blocks, arguments)
    kernels = load_kernels(part, index, variant, KERNELS[part])
    kernels[name].launch(blocks, driver.pack_arguments(arguments), current_stream(index))


def multiprocessors(device: torch.device) -> int:
    """Number of a CUDA device's multiprocessors, from which follows how many blocks with partial sums keep it busy."""
    return device_numbers(device.index)[1]


def _is_wide(channels: int, item: int, addresses: int, *strides: int) -> bool:
    """True if rows can be read 16 bytes at a time. addresses: all pointers, or-ed. strides: of rows, in elements."""
    return channels % PIECE == 0 and addresses % 16 == 0 and all(stride * item % 16 == 0 for stride in strides)


# ---- convolution ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _conv_layout(batch: int, sizes: tuple[int, ...], channels: int, processors: int) -> tuple[int, int, int, tuple]:
    """Blocks of the plain kernels, blocks of conv_grad_output, rows of its partial sums, and ConvArgs' counts.

    The counts come in two parts: what stands before the strides, and what behind.
    """
    depth, height, width = (1, *sizes) if len(sizes) == 2 else sizes
    rows, strips = batch * depth * height, -(-width // STRIP)
    tile_strips = min(TILE_STRIPS, 1 << (strips - 1).bit_length())
    tile_columns, tile_rows = -(-strips // tile_strips), STRIPS // tile_strips
    tiles, channel_blocks = tile_columns * -(-rows // tile_rows), -(-channels // CHANNELS)
    workers = min(tiles, -(-CONV_RESIDENT * processors // channel_blocks))
    counts = ((rows, tiles), (depth, height, width, channels, tile_strips, tile_columns, channel_blocks))
    return tiles * channel_blocks, workers * channel_blocks, workers, counts


def _convolve(
    name: str,
    source: Tensor,
    gradient: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    parts: Tensor | None,
    batch: int,
    sizes: tuple[int, ...],
) -> None:
    weight = weight.contiguous()
    channels, in_token, out_token = weight.shape[0], source.stride(0), out.stride(0)
    blocks, summing_blocks, _, (tiles, counts) = _conv_layout(batch, sizes, channels, multiprocessors(source.device))
    source_at, out_at = source.data_ptr(), out.data_ptr()
    gradient_at = 0 if gradient is None else gradient.data_ptr()
    bias_at, parts_at = 0 if bias is None else bias.data_ptr(), 0 if parts is None else parts.data_ptr()
    wide = _is_wide(channels, source.element_size(), source_at | out_at | gradient_at, in_token, out_token)
    pointers = (source_at, gradient_at, weight.data_ptr(), bias_at, out_at, parts_at)
    arguments = _CONV.pack(*pointers, *tiles, in_token, out_token, *counts)
    variant = BssVariant(source.dtype, wide, len(sizes))
    launch(source.device, "conv", variant, name, blocks if parts is None else summing_blocks, arguments)


def conv_forward(x: Tensor, weight: Tensor, bias: Tensor, batch: int, sizes: tuple[int, ...]) -> Tensor:
    """SiLU of (depthwise convolution of x + bias), (batch L, E) contiguous in x's type.

    x: (batch L, E or more), the first E columns are taken; dense rows. weight (E, 1, 3, ..), bias (E,) float32.
    """
    out = x.new_empty(x.shape[0], weight.shape[0])
    _convolve("conv_forward", x, None, weight, bias, out, None, batch, sizes)
    return out


def conv_grad_output(
    out: Tensor, grad_output: Tensor, x: Tensor, weight: Tensor, bias: Tensor, batch: int, sizes: tuple[int, ...]
) -> Tensor:
    """Writes the gradient of the convolution's own result to `out`; grad_output: that of `conv_forward`'s.

    out, grad_output: (batch L, E) contiguous. Returns (workers, E 3^n + E) float32: summed over the first axis, the
    gradients of weight and of bias. The rest as in `conv_forward`.
    """
    layout = _conv_layout(batch, sizes, weight.shape[0], multiprocessors(x.device))
    parts = x.new_empty(layout[2], weight.numel() + weight.shape[0], dtype=torch.float32)
    _convolve("conv_grad_output", x, grad_output, weight, bias, out, parts, batch, sizes)
    return parts


def conv_grad_input(out: Tensor, grad_output: Tensor, weight: Tensor, batch: int, sizes: tuple[int, ...]) -> None:
    """Writes the gradient of the convolution's x to the first E columns of `out`.

    grad_output: of the convolution's own result, as `conv_grad_output` writes it.
    """
    _convolve("conv_grad_input", grad_output, None, weight, None, out, None, batch, sizes)


# ---- norm and gate ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def norm_layout(channels: int, wide: bool) -> tuple[int, int]:
    """Pieces per thread, and threads per token, for E channels, at most MAX_CHANNELS."""
    pieces = -(-channels // PIECE)
    # two pieces per thread keep more reads in flight; without wide reads they would not fit into the registers
    per_thread = NORM_PIECES if pieces > NORM_THREADS or (wide and pieces > 1) else 1
    return per_thread, 1 << (-(-pieces // per_thread) - 1).bit_length()


def _norm(
    y: Tensor,
    gate: Tensor,
    gradient: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    out: Tensor,
    dy: Tensor | None,
    dgate: Tensor | None,
) -> Tensor | None:
    tokens, channels = y.shape
    at = [0 if t is None else t.data_ptr() for t in (y, gate, gradient, gamma, beta, out, dy, dgate)]
    addresses = at[0] | at[1] | at[2] | at[3] | at[4] | at[5] | at[6] | at[7]
    dgate_token = 0 if dgate is None else dgate.stride(0)
    wide = _is_wide(channels, y.element_size(), addresses, gate.stride(0), dgate_token)
    pieces, lanes = norm_layout(channels, wide)
    blocks, name, parts = -(-tokens * lanes // NORM_THREADS), f"norm_forward_{pieces}", None
    if gradient is not None:
        blocks = min(NORM_RESIDENT * multiprocessors(y.device), -(-blocks // FEWEST_TURNS))
        name, parts = f"norm_backward_{pieces}", y.new_empty(blocks, 2, channels, dtype=torch.float32)
    parts_at = 0 if parts is None else parts.data_ptr()
    arguments = _NORM.pack(*at, parts_at, tokens, gate.stride(0), dgate_token, channels, lanes)
    launch(y.device, "norm", BssVariant(y.dtype, wide), name, blocks, arguments)
    return parts


def norm_forward(y: Tensor, gate: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Product layer_norm(y) silu(gate), (tokens, E) contiguous in y's type.

    y: (tokens, E) contiguous. gate: (tokens, E), dense rows at any distance. gamma, beta: (E,) float32.
    """
    out = torch.empty_like(y)
    _norm(y, gate, None, gamma, beta, out, None, None)
    return out


def norm_backward(
    dgate: Tensor, grad_output: Tensor, y: Tensor, gate: Tensor, gamma: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Writes the gradient of the gate to `dgate`; grad_output: (tokens, E) contiguous, that of `norm_forward`'s result.

    dgate: like gate. Returns that result again, y's gradient, and (blocks, 2, E) float32 whose sum over the first axis
    is the gradients of gamma and beta.
    """
    out, dy = torch.empty_like(y), torch.empty_like(y)
    parts = _norm(y, gate, grad_output, gamma, beta, out, dy, dgate)
    assert parts is not None
    return out, dy, parts


# ---- copies and sums --------------------------------------------------------------------------------------------


class Segment(NamedTuple):
    """One array that `copy_segments` writes; bss_copy.cu says from what. offset: of source, in its elements.

    pieces, piece_step: how many arrays are summed and how far apart they are. middle, inner, outer_step, middle_step:
    where number (k, e, r) of an array (.., middle, inner) is, for SUM_HALF.
    """

    kind: int
    source: Tensor
    target: Tensor
    factor: Tensor | None = None
    pieces: int = 1
    piece_step: int = 0
    middle: int = 1
    inner: int = 1
    outer_step: int = 0
    middle_step: int = 0
    offset: int = 0


def copy_segments(segments: list[Segment], dtype: torch.dtype) -> None:
    """Writes every segment's target, contiguous, from its source, contiguous, in one launch; at most SEGMENTS.

    dtype: the compute type, which CAST writes and WIDEN and SUM_HALF read.
    """
    packed, first = [], 0
    for s in segments:
        count = s.target.numel()
        source = s.source.data_ptr() + s.offset * s.source.element_size()
        factor = 0 if s.factor is None else s.factor.data_ptr()
        pointers = (source, factor, s.target.data_ptr(), s.piece_step)
        layout = (s.middle, s.inner, s.outer_step, s.middle_step)
        packed.append(_SEGMENT.pack(*pointers, count, s.pieces, first, s.kind, *layout))
        first += -(-count // (32 if s.kind >= SUM else COPY_THREADS * PIECE))
    padding = bytes(_SEGMENT.size * (SEGMENTS - len(packed)))
    arguments = b"".join(packed) + padding + struct.pack("i4x", len(packed))
    launch(segments[0].target.device, "copy", BssVariant(dtype), "copy_segments", first, arguments)
