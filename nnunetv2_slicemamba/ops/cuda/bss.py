"""Forward and backward pass of a whole BSS block on a GPU, as few launches.

    x -> in_proj -> (x, gate); x -> convolution, SiLU -> tokens -> x_proj -> (dt, B, C)
    scan(tokens, dt, B, C) -> y -> LayerNorm -> times SiLU(gate) -> out_proj

Matrix products are cuBLAS's, the scan is scan.py's, the rest bss_kernels.py's. Launches: 9 forward and 17 backward
in half precision; 2 more in each where the scan is cut into chunks, 1 more backward from 8,192 tokens on.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nnunetv2_slicemamba.ops.bss_parameters import BssParameters
from nnunetv2_slicemamba.ops.cuda import bss_kernels as kernels
from nnunetv2_slicemamba.ops.cuda import driver, low_rank, scan
from nnunetv2_slicemamba.ops.cuda.bss_kernels import Segment

scan_kernels: Any = scan  # `forward` and `backward_into`


class Saved(NamedTuple):
    """Tensors that the forward pass keeps for the backward pass beside x and the parameters; T = batch L.

    The convolution's result is not kept: computing it again reads and writes it once, a hundredth of the block's
    time, and saves (T, E) per block; the same holds for the gated result. Empty: copy and weights if x and the
    parameters have the compute type already; everything unless gradients are needed.
    """

    copy: Tensor  # x in the compute type
    xz: Tensor  # (T, 2E), in_proj's result: x and gate
    projected: Tensor  # (T, K (R + 2N)), x_proj's result
    y: Tensor  # (T, E), the scan's result
    states: Tensor  # the scan's
    A: Tensor  # (K, E, N) float32
    in_proj: Tensor
    x_proj: Tensor
    dt_weight: Tensor
    out_proj: Tensor


def needs_copy(x: Tensor, dtype: torch.dtype) -> bool:
    """True if the products cannot read x (batch, *sizes, C) as it is."""
    return x.dtype != dtype or not x.is_contiguous()


def forward(
    x: Tensor, parameters: BssParameters, thickness: tuple[int, ...], dtype: torch.dtype, save: bool
) -> tuple[Tensor, Saved]:
    """BSS of x (batch, *sizes, C), of type `dtype`, and what the backward pass needs, empty unless `save`.

    dtype: the compute type, float32, float16 or bfloat16, of the products and of what is kept between kernels; all
    sums within kernels are float32. float16 values beyond 65504 become +-65504 except in cuBLAS's products, NaN stays.
    The compute type's copies of the parameters are made anew each time, one launch together with x's and with A: a
    copy kept for a parameter's version would miss changes through `.data` and be stale in a replayed CUDA graph.
    """
    p, empty = parameters, x.new_empty(0)
    batch, *axes, width = x.shape
    sizes, tokens = tuple(axes), x.numel() // width
    channels, (K, rows, _), N = p.conv_bias.shape[0], p.x_proj.shape, p.A_logs.shape[1]
    copy, weights, A = _prepare(x, p, dtype)
    in_proj, x_proj, dt_weight, out_proj = weights or p.products
    xz = torch.empty(tokens, 2 * channels, dtype=dtype, device=x.device)
    torch.mm((x if copy is None else copy).view(tokens, width), in_proj.t(), out=xz)
    scanned = kernels.conv_forward(xz, p.conv_weight, p.conv_bias, batch, sizes)
    projected = torch.mm(scanned, x_proj.view(K * rows, channels).t(), out=scanned.new_empty(tokens, K * rows))
    dt, B, C = _split(projected, batch, K, N)
    D = p.D.view(K, channels)
    scanned = scanned.view(batch, -1, channels)
    y, states = scan_kernels.forward(scanned, dt, B, C, A, D, p.dt_bias, dt_weight, sizes, thickness, save)
    y = y.view(tokens, channels)
    gated = kernels.norm_forward(y, xz[:, channels:], p.gamma, p.beta)
    out = torch.mm(gated, out_proj.t(), out=gated.new_empty(tokens, width)).view(x.shape)
    if not save:
        return out, Saved(*(empty for _ in Saved._fields))
    copied = weights or (empty,) * 4
    return out, Saved(empty if copy is None else copy, xz, projected, y, states, A, *copied)


def _prepare(
    x: Tensor, p: BssParameters, dtype: torch.dtype
) -> tuple[Tensor | None, tuple[Tensor, Tensor, Tensor, Tensor] | None, Tensor]:
    """Copies of x and of the products' weights in `dtype`, None for what has it already, and A (K, E, N)."""
    K, channels, _ = p.dt_weight.shape
    A = torch.empty(K, channels, p.A_logs.shape[1], dtype=torch.float32, device=x.device)
    segments, copy, weights = [Segment(kernels.NEGATIVE_EXP, p.A_logs.contiguous(), A)], None, None
    if dtype != torch.float32:
        made = [torch.empty(w.shape, dtype=dtype, device=x.device) for w in p.products]
        segments += [Segment(kernels.CAST, w.contiguous(), m) for w, m in zip(p.products, made, strict=True)]
        weights = (made[0], made[1], made[2], made[3])
    if needs_copy(x, dtype):
        if x.dtype == torch.float32 and dtype != torch.float32:
            copy = torch.empty(x.shape, dtype=dtype, device=x.device)
            segments.append(Segment(kernels.CAST, x.contiguous(), copy))
        else:
            copy = x.to(dtype).contiguous()
    kernels.copy_segments(segments, dtype)
    return copy, weights, A


def _split(projected: Tensor, batch: int, K: int, N: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of (T, K (R + 2N)): dt (batch, L, K, R), B and C (batch, L, K, N)."""
    rows = projected.view(batch, projected.shape[0] // batch, K, projected.shape[1] // K)
    dt, B, C = rows.split([rows.shape[3] - 2 * N, N, N], dim=-1)
    return dt, B, C


def backward(
    dout: Tensor, x: Tensor, x_dtype: torch.dtype, parameters: BssParameters, saved: Saved, thickness: tuple[int, ...]
) -> tuple[Tensor, BssParameters]:
    """Gradients of x, of type `x_dtype`, and of the parameters, float32 and never clipped.

    dout: gradient of `forward`'s result. x: (batch, *sizes, C) as the products read it. saved: `forward`'s, filled up
    with the parameters themselves where they are what the products read.
    """
    p, dtype = parameters, saved.xz.dtype
    batch, *axes, width = x.shape
    sizes = tuple(axes)
    tokens, channels = saved.y.shape
    if x.device.type == "cuda":
        driver.ensure_context(x.device.index)  # autograd's thread may have none yet, and cuBLAS warns about that
    gradients = BssParameters(*(torch.empty(t.shape, dtype=torch.float32, device=t.device) for t in p))
    # products into what float32 gradients are made of; in float32 they are the gradients
    product_in, product_x, _, product_out = (
        gradients.products if dtype == torch.float32 else [torch.empty_like(w) for w in saved[6:]]
    )
    dxz, xz = torch.empty_like(saved.xz), saved.xz

    dout = dout.to(dtype).reshape(tokens, width)
    dgated = torch.mm(dout, saved.out_proj, out=xz.new_empty(tokens, channels))
    gated, dy, norm_parts = kernels.norm_backward(dxz[:, channels:], dgated, saved.y, xz[:, channels:], p.gamma, p.beta)
    torch.mm(dout.t(), gated, out=product_out)
    del gated

    scanned = kernels.conv_forward(xz, p.conv_weight, p.conv_bias, batch, sizes)
    dprojected = torch.empty_like(saved.projected)
    dtokens, dA, dD, dbias, weight_parts, all_pairs = _scan_backward(
        dprojected, dy, scanned, p, saved, batch, sizes, thickness
    )
    del dy
    torch.mm(dprojected.t(), scanned, out=product_x.view(-1, channels))
    torch.addmm(dtokens, dprojected, saved.x_proj.view(-1, channels), out=dtokens)
    dconv = dgated  # no longer needed
    conv_parts = kernels.conv_grad_output(dconv, dtokens, xz, p.conv_weight, p.conv_bias, batch, sizes)
    kernels.conv_grad_input(dxz, dconv, p.conv_weight, batch, sizes)

    torch.mm(dxz.t(), x.view(tokens, width), out=product_in)
    dx = torch.mm(dxz, saved.in_proj, out=xz.new_empty(tokens, width)).view(x.shape)
    segments = _sums(gradients, conv_parts, norm_parts, weight_parts, all_pairs)
    segments.append(Segment(kernels.PRODUCTS, dA, gradients.A_logs, saved.A))  # A = -exp(A_logs) is its own derivative
    if dtype != torch.float32:
        segments += [
            Segment(kernels.WIDEN, product_in, gradients.in_proj),
            Segment(kernels.WIDEN, product_x, gradients.x_proj),
            Segment(kernels.WIDEN, product_out, gradients.out_proj),
        ]
        if x_dtype == torch.float32:
            half, dx = dx, torch.empty(x.shape, dtype=x_dtype, device=x.device)
            segments.append(Segment(kernels.WIDEN, half, dx))
    kernels.copy_segments(segments, dtype)
    return dx.to(x_dtype), gradients._replace(D=dD.view(p.D.shape), dt_bias=dbias)


def _scan_backward(
    dprojected: Tensor,
    dy: Tensor,
    scanned: Tensor,
    p: BssParameters,
    saved: Saved,
    batch: int,
    sizes: tuple[int, ...],
    thickness: tuple[int, ...],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, bool]:
    """Writes the gradient of `saved.projected`; returns those of scanned, A, D, dt_bias, then `weight_products`.

    scanned: the convolution's result (T, E). dy: gradient of the scan's result (T, E).
    """
    channels = scanned.shape[1]
    K, _, N = saved.A.shape
    dt, B, C = _split(saved.projected, batch, K, N)
    d_low, dB, dC = _split(dprojected, batch, K, N)
    scanned, dy = scanned.view(batch, -1, channels), dy.view(batch, -1, channels)
    full = low_rank.expand_dt(dt, saved.dt_weight)
    D = p.D.view(K, channels)
    # full is read for the last time where its gradient is written, so both share the memory
    gradients = scan_kernels.backward_into(
        full, dB, dC, dy, scanned, full, B, C, saved.A, D, p.dt_bias, saved.states, sizes, thickness
    )
    low_rank.reduce_dt_into(d_low, full, saved.dt_weight)
    dtokens, dA, dD, dbias = gradients
    return dtokens.view(-1, channels), dA, dD, dbias, *low_rank.weight_products(full, dt)


def _sums(g: BssParameters, conv: Tensor, norm: Tensor, weight: Tensor, all_pairs: bool) -> list[Segment]:
    """Segments that add up gradients, from the kernels' partial sums and dt_weight's products."""
    K, channels, rank = g.dt_weight.shape
    taps, conv_step = g.conv_weight.numel(), conv.shape[1]
    steps = (channels * K * rank + rank, K * rank) if all_pairs else (channels * rank, rank)
    conv_sum = (kernels.SUM, conv)
    return [
        Segment(*conv_sum, g.conv_weight, pieces=conv.shape[0], piece_step=conv_step),
        Segment(*conv_sum, g.conv_bias, pieces=conv.shape[0], piece_step=conv_step, offset=taps),
        Segment(kernels.SUM, norm, g.gamma, pieces=norm.shape[0], piece_step=2 * channels),
        Segment(kernels.SUM, norm, g.beta, pieces=norm.shape[0], piece_step=2 * channels, offset=channels),
        Segment(
            kernels.SUM_HALF,
            weight,
            g.dt_weight,
            pieces=weight.shape[0],
            piece_step=weight[0].numel(),
            middle=channels,
            inner=rank,
            outer_step=steps[0],
            middle_step=steps[1],
        ),
    ]


def fits(x: Tensor, channels: int) -> bool:
    """True if the kernels' counters and registers hold x (batch, *sizes, C) and E channels; x must not be empty."""
    batch, *axes, width = x.shape
    largest = max(x.numel(), batch * prod(axes[:-1]) * -(-axes[-1] // kernels.STRIP), 4 * channels * width)
    return x.numel() > 0 and channels <= kernels.MAX_CHANNELS and largest < 2**31
