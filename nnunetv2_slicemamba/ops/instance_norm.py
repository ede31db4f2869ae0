"""Instance norm followed by a leaky ReLU, as one operation: kernels of its own on a GPU for channels-last images.

Convolution, instance norm and leaky ReLU are what nnU-Net's networks repeat. At high resolution, a training step lasts
as long as the GPU needs to read and write the images. PyTorch's instance norm copies channels-last images to another
layout, and leaky ReLU is one more pass.

A convolution right before this norm needs no bias: the norm subtracts the mean, and any bias with it. The bias's
gradient is 0 up to rounding, yet costs one more reading of the whole gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunetv2_slicemamba.ops.backends import BACKENDS, block_backend
from nnunetv2_slicemamba.ops.loop_scan import is_exporting

_HALF = (torch.float16, torch.bfloat16)
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def instance_norm_leaky_relu(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, slope: float = 0.01) -> Tensor:
    """Leaky ReLU of weight (x - mean) / sqrt(variance + eps) + bias, in x's type, shape and memory format.

    Mean and biased variance are those of each sample and channel over the spatial axes, computed in float32 (float64
    for float64). x: (B, C, H, W) or (B, C, D, H, W). weight, bias: (C,), float32 also for half x. slope: of the leaky
    ReLU below 0. Autocast changes nothing. Kernels of the backend that scans run where it has them, x is channels last
    and the parameters are float32; they are differentiable once and two runs give the same bits. SLICEMAMBA_FUSED=0
    switches them off. Raises ValueError for shapes, types or devices that do not fit, and for a single position in
    space, which has no variance.
    """
    _check(x, weight, bias)
    name = None if is_exporting() else block_backend(x.device, x.dtype)
    kernels = None if name is None else BACKENDS[name].instance_norm
    out = None if kernels is None else kernels(x, weight, bias, eps, slope)
    return instance_norm_leaky_relu_reference(x, weight, bias, eps, slope) if out is None else out


def instance_norm_leaky_relu_reference(x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float) -> Tensor:
    """The same by PyTorch's operators, for every device and type; differentiable any number of times."""
    # PyTorch's CUDA kernels take float32 parameters for half x, and sum in float32
    compute = torch.float32 if x.dtype in _HALF else x.dtype
    inner = x if x.is_cuda and x.dtype in _HALF else x.to(compute)
    out = F.instance_norm(inner, weight=weight.to(compute), bias=bias.to(compute), eps=eps)
    out = F.leaky_relu(out, slope).to(x.dtype)
    last = _CHANNELS_LAST[x.dim()]
    return out.contiguous(memory_format=last) if x.is_contiguous(memory_format=last) else out


def _check(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    if x.dim() not in _CHANNELS_LAST:
        raise ValueError(f"x has shape {tuple(x.shape)}, it must be (B, C, H, W) or (B, C, D, H, W); reshape it")
    if not x.is_floating_point():
        raise ValueError(f"x is {x.dtype}, it must be a floating type; convert it with .float()")
    if x.shape[2:].numel() == 1:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, an instance norm needs more than one position in space; leave the norm out "
            "there or pool less"
        )
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tuple(tensor.shape) != (x.shape[1],):
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, it must be (C,) = ({x.shape[1]},) for x {tuple(x.shape)}; "
                "give one value per channel"
            )
        if tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device} and x on {x.device}, they must share one; move it with .to")
