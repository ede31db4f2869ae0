"""A whole BSS block without its scans on a GPU, by the kernels around the scan.

x -> in_proj -> (x, gate); x -> convolution, SiLU -> times the sum of D -> LayerNorm -> times SiLU(gate) -> out_proj

Matrix products are cuBLAS's, convolution and norm bss_kernels.py's, the rest PyTorch's. Nothing of (T, E) but in_proj's
result is kept for the backward pass, T = batch L.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnunetv2_slicemamba.ops.bss_parameters import BssParameters
from nnunetv2_slicemamba.ops.cuda import bss_kernels as kernels
from nnunetv2_slicemamba.ops.cuda import driver
from nnunetv2_slicemamba.ops.inputs import differentiable_once, no_autocast


def apply(x: Tensor, parameters: BssParameters, dtype: torch.dtype) -> Tensor:
    """BSS of x (batch, *sizes, C) with the scans' skip term alone, in compute type `dtype`; differentiable once.

    Parameters are float32; those of the scans get no gradient. Call it only where `bss.fits(x, E)`.
    """
    p = parameters
    skip = p.D.view(p.x_proj.shape[0], -1).sum(0)
    own = (p.in_proj, p.conv_weight, p.conv_bias, skip, p.gamma, p.beta, p.out_proj)
    with no_autocast(x.device):  # it would compute in its own type, not in `dtype`
        result: Tensor = _Scanless.apply(x, *own, dtype)
    return result


class _Scanless(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *arguments: Any) -> Tensor:
        in_proj, conv_weight, conv_bias, skip, gamma, beta, out_proj, dtype = arguments
        *shape, width = x.shape
        batch, sizes, channels = shape[0], tuple(shape[1:]), conv_bias.shape[0]
        read, into, out_of = (t.to(dtype).contiguous() for t in (x, in_proj, out_proj))
        xz = torch.mm(read.view(-1, width), into.t())
        scaled = kernels.conv_forward(xz, conv_weight, conv_bias, batch, sizes).mul_(skip.to(dtype))
        gated = kernels.norm_forward(scaled, xz[:, channels:], gamma, beta)
        ctx.save_for_backward(read, xz, into, out_of, conv_weight, conv_bias, skip, gamma, beta)
        ctx.x_dtype = x.dtype
        return torch.mm(gated, out_of.t()).view(x.shape)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        x, xz, in_proj, out_proj, conv_weight, conv_bias, skip, gamma, beta = ctx.saved_tensors
        if x.device.type == "cuda":
            driver.ensure_context(x.device.index)  # autograd's thread may have none yet, and cuBLAS warns about that
        *shape, width = x.shape
        batch, sizes, channels = shape[0], tuple(shape[1:]), conv_bias.shape[0]
        factor, dxz = skip.to(xz.dtype), torch.empty_like(xz)
        dout = dout.to(xz.dtype).reshape(-1, width)
        tokens = kernels.conv_forward(xz, conv_weight, conv_bias, batch, sizes)
        dgated = torch.mm(dout, out_proj)
        gate, dgate = xz[:, channels:], dxz[:, channels:]
        gated, dscaled, norm_parts = kernels.norm_backward(dgate, dgated, tokens * factor, gate, gamma, beta)
        dskip = tokens.mul_(dscaled).sum(0, dtype=torch.float32)
        dconv = dgated  # no longer needed
        conv = (conv_weight, conv_bias, batch, sizes)
        conv_parts = kernels.conv_grad_output(dconv, dscaled.mul_(factor), xz, *conv).sum(0)
        kernels.conv_grad_input(dxz, dconv, conv_weight, batch, sizes)
        dweight, dbias = conv_parts.split([conv_weight.numel(), channels])
        dgamma, dbeta = norm_parts.sum(0)
        dx = torch.mm(dxz, in_proj).view(x.shape).to(ctx.x_dtype)
        din_proj, dout_proj = torch.mm(dxz.t(), x.view(-1, width)).float(), torch.mm(dout.t(), gated).float()
        return dx, din_proj, dweight.view_as(conv_weight), dbias, dskip, dgamma, dbeta, dout_proj, None
