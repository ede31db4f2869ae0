"""Instance norm with the leaky ReLU behind it on a GPU, for channels-last images, as an operator of PyTorch.

Forward reads x twice and writes the result. Backward reads x and the gradient twice and writes the gradient of x. Only
x and two numbers per sample and channel are kept between them. The kernels are in instance_norm.cu.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nnunetv2_slicemamba.ops.cuda import bss_kernels as kernels
from nnunetv2_slicemamba.ops.cuda import cubins, driver
from nnunetv2_slicemamba.ops.cuda.cubins import PIECE, BssVariant
from nnunetv2_slicemamba.ops.inputs import differentiable_once

THREADS = kernels.NORM_THREADS
MOST_LANES, FEWEST_LANES = 8, 4  # threads that share a position: a slice of 64 or 32 channels, fewer if there are fewer
FORWARD_RESIDENT, BACKWARD_RESIDENT = 4, 3  # blocks per multiprocessor, as the kernels' registers allow
FEWEST_TURNS = 4  # positions per thread: every chunk's sums are read by all blocks of its sample
WHOLE_POSITIONS = 1024  # up to here one launch is faster than two
_ARGUMENTS = struct.Struct("8P2q5i2f4x")  # InstanceNormArgs
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


class Plan(NamedTuple):
    """Grid of a pass: `lanes` threads per position, `slices` of the channels, `chunks` of `chunk` positions each."""

    lanes: int
    slices: int
    chunk: int
    chunks: int


@lru_cache(maxsize=256)
def make_plan(samples: int, positions: int, channels: int, processors: int, resident: int) -> Plan:
    """The grid for a GPU of so many multiprocessors, which hold `resident` blocks each.

    One chunk means that one launch does everything.
    """
    pieces = -(-channels // PIECE)
    lanes = min(MOST_LANES, 1 << (pieces - 1).bit_length())
    if lanes > FEWEST_LANES:
        wasted = {n: -pieces % n for n in (MOST_LANES, FEWEST_LANES)}
        small = positions <= WHOLE_POSITIONS and samples * -(-pieces // lanes) < processors
        if small or wasted[FEWEST_LANES] < wasted[MOST_LANES]:
            lanes = FEWEST_LANES
    slices = -(-pieces // lanes)
    # backward has one more block per slice, which must not have to wait for another to end
    chunks = (resident * processors - slices) // (samples * slices)
    if positions <= WHOLE_POSITIONS or chunks <= 1:
        return Plan(lanes, slices, positions, 1)
    rows = THREADS // lanes
    chunk = max(-(-positions // (chunks * rows)), FEWEST_TURNS) * rows
    return Plan(lanes, slices, chunk, -(-positions // chunk))


def fits(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """True if the kernels take x (B, C, *spatial): channels last, several positions, float32 parameters."""
    return (
        x.dim() in _FORMATS
        and x.dtype in cubins.ELEMENTS
        and weight.dtype == bias.dtype == torch.float32
        and x.numel() > 0
        and prod(x.shape[2:]) > 1
        and x.is_contiguous(memory_format=_FORMATS[x.dim()])
    )


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=_FORMATS[tensor.dim()])


def _run(
    x: Tensor,
    gradient: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    moments: Tensor,
    out: Tensor,
    parameters: Tensor | None,
    eps: float,
    slope: float,
) -> None:
    """Launches a pass over x, backward if a gradient is given, which fills `out` and moments or parameters."""
    samples, channels, positions = x.shape[0], x.shape[1], prod(x.shape[2:])
    processors = kernels.multiprocessors(x.device)
    resident = FORWARD_RESIDENT if gradient is None else BACKWARD_RESIDENT
    plan = make_plan(samples, positions, channels, processors, resident)
    parts = x.new_empty(samples, plan.chunks, 2, channels, dtype=torch.float32)
    tensors = (x, gradient, weight, bias, moments, out, parts, parameters)
    at = [0 if t is None else t.data_ptr() for t in tensors]
    wide = channels % PIECE == 0 and all(address % 16 == 0 for address in at)
    counts = (positions, plan.chunk, channels, plan.lanes, plan.slices, plan.chunks, samples)
    arguments = _ARGUMENTS.pack(*at, *counts, eps, slope)
    variant, blocks = BssVariant(x.dtype, wide), samples * plan.chunks * plan.slices
    if gradient is None:
        one = {"forward_whole": blocks}
        two = {"statistics": blocks, "normalise": blocks}
    else:
        one = {"backward_whole": blocks, "gradient_parameters": plan.slices}
        # the first blocks of the second launch add up for weight and bias
        two = {"gradient_sums": blocks, "gradient_input": plan.slices + blocks}
    for name, count in (one if plan.chunks == 1 else two).items():
        kernels.launch(x.device, "instance_norm", variant, f"instance_norm_{name}", count, arguments)


def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float) -> tuple[Tensor, Tensor]:
    """The result, like x, and (B, 2, C) float32: mean and 1 / deviation of every sample and channel.

    x: (B, C, *spatial), copied if it is not channels last. weight, bias: (C,) float32 contiguous.
    """
    x = _channels_last(x)
    out, moments = torch.empty_like(x), x.new_empty(x.shape[0], 2, x.shape[1], dtype=torch.float32)
    _run(x, None, weight, bias, moments, out, None, eps, slope)
    return out, moments


def backward(
    dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor, moments: Tensor, slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, like x, and of weight and bias, (C,) float32.

    dout: of `forward`'s result. moments: as `forward` returns them. Sums are made in a fixed order: two runs give the
    same bits.
    """
    x, dout = _channels_last(x), _channels_last(dout.to(x.dtype))
    dx, parameters = torch.empty_like(x), x.new_empty(2, x.shape[1], dtype=torch.float32)
    _run(x, dout, weight, bias, moments, dx, parameters, 0.0, slope)
    dweight, dbias = parameters
    return dx, dweight, dbias


# ---- the operator -----------------------------------------------------------------------------------------------

_NAME = "slicemamba::instance_norm_leaky_relu"
_BACKWARD = f"{_NAME}_backward"
torch.library.define(_NAME, "(Tensor x, Tensor weight, Tensor bias, float eps, float slope) -> (Tensor, Tensor)")
torch.library.define(
    _BACKWARD,
    "(Tensor dout, Tensor x, Tensor weight, Tensor bias, Tensor moments, float slope) -> (Tensor, Tensor, Tensor)",
)
torch.library.impl(_NAME, ("cpu", "cuda"), forward)


@torch.library.impl(_BACKWARD, ("cpu", "cuda"))
def _operator_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    dx, dweight, dbias = backward(*arguments)
    return dx, dweight.clone(), dbias.clone()  # outputs must not share memory


@torch.library.register_fake(_NAME)
def _fake_forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float) -> tuple[Tensor, Tensor]:
    moments = x.new_empty((x.shape[0], 2, x.shape[1]), dtype=torch.float32)
    return torch.empty_like(x, memory_format=_FORMATS[x.dim()]), moments


@torch.library.register_fake(_BACKWARD)
def _fake_backward(
    dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor, moments: Tensor, slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty_like(x, memory_format=_FORMATS[x.dim()])
    return dx, torch.empty_like(weight), torch.empty_like(bias)


def _needed(ctx: Any, gradients: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    return *(g if needed else None for g, needed in zip(gradients, ctx.needs_input_grad[:3], strict=True)), None, None


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, _, ctx.slope = inputs
    ctx.save_for_backward(*tensors, output[1])


def _operator_gradients(ctx: Any, dout: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    # the registered operator, because this function is traced when it is compiled
    gradients = torch.ops.slicemamba.instance_norm_leaky_relu_backward(dout, *ctx.saved_tensors, ctx.slope)
    return _needed(ctx, gradients)


torch.library.register_autograd(_NAME, _operator_gradients, setup_context=_setup_context)


class InstanceNormFunction(torch.autograd.Function):
    """The operator without PyTorch's dispatcher, which costs more host time than launching the kernels."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        out, moments = forward(*inputs)
        _setup_context(ctx, inputs, (out, moments))
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        if dout.is_cuda:
            driver.ensure_context(dout.device.index)  # autograd's thread may have none yet
        x, weight, bias, moments = ctx.saved_tensors
        return _needed(ctx, backward(dout, x, weight, bias, moments, ctx.slope))


def apply(x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float) -> Tensor:
    """Leaky ReLU of the instance norm of x (B, C, *spatial), differentiable once; like x.

    weight, bias: (C,) float32. float16 results that are too large become infinite. Call it only where
    `fits(x, weight, bias)`.
    """
    weight, bias = weight.contiguous(), bias.contiguous()
    tensors = (x, weight, bias)
    # neither fake nor otherwise special
    if torch.compiler.is_compiling() or not all(type(t) in (Tensor, torch.nn.Parameter) for t in tensors):
        return torch.ops.slicemamba.instance_norm_leaky_relu(*tensors, eps, slope)[0]
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        result: Tensor = InstanceNormFunction.apply(*tensors, eps, slope)
        return result
    return forward(*tensors, eps, slope)[0]
