"""The CUDA backend: scans, whole blocks and norms on NVIDIA GPUs, by the kernels in ops/cuda.

Those modules are imported where they are used. Import statements, unlike importlib, can be traced by torch.compile,
which keeps a scan that is an operator inside the compiled graph.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from nnunetv2_slicemamba.ops.bss_parameters import BssParameters
from nnunetv2_slicemamba.ops.compiling import constant_while_compiling

OLDEST_CAPABILITY = (8, 0)


@constant_while_compiling
def unavailable_reason(device: torch.device, dtype: torch.dtype) -> str | None:
    """Reason why the kernels cannot run on `device` with tokens of type `dtype`, None if they can. Never raises."""
    from nnunetv2_slicemamba.ops.cuda import cubins

    if device.type != "cuda":
        return f"the CUDA backend needs an NVIDIA GPU, not {device.type}"
    if dtype not in cubins.ELEMENTS:
        return f"the CUDA backend computes in float32 and takes float32, float16 and bfloat16, not {dtype}"
    if torch.version.cuda is None:
        return "this PyTorch was built without CUDA; install one of its CUDA builds"
    try:
        return _missing(torch.cuda.current_device() if device.index is None else device.index)
    except Exception as error:  # whatever a broken driver comes up with
        return f"the GPU cannot be used: {error}"


@lru_cache(maxsize=64)
def _missing(device: int) -> str | None:
    """Reason why CUDA device `device` cannot run the kernels; None if it can."""
    from nnunetv2_slicemamba.ops.cuda import driver

    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) < OLDEST_CAPABILITY:
        oldest = ".".join(map(str, OLDEST_CAPABILITY))
        return f"the CUDA backend needs compute capability {oldest} (Ampere) or above, this GPU has {major}.{minor}"
    try:
        driver.load_driver()
        known = driver.nvrtc_architectures()
    except OSError as error:
        return str(error)
    if 10 * major + minor not in known:
        version = ".".join(map(str, driver.nvrtc_version()))
        return f"NVRTC {version} cannot compile for compute capability {major}.{minor}; install a newer PyTorch"
    return None


def scan(
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
    """The scan `slice_scan` on a GPU for checked arguments; differentiable, (batch, L, E) in x's type.

    x (batch, L, E) tokens in raster order, dt (batch, L, K, E), or (batch, L, K, R) with dt_weight (K, E, R), before
    bias and softplus, B and C (batch, L, K, N), A (K, E, N), D and delta_bias (K, E), N at most 32. The recurrence is
    computed in float32. float16 results and gradients beyond 65504 become +-65504, NaN stays; the float32 gradients of
    A and D are never clipped, so that a gradient scaler still notices an infinite gradient. Saved for the backward pass
    beside the inputs: one state per 32 tokens (16 on GPUs with little shared memory or above 16 states), in bfloat16
    for half inputs. Runs on the current stream; two runs give the same bits. Raises ValueError for too large an N.
    After Gu & Dao 2023 (S6) and Fan et al. 2025 (slicing).
    """
    from nnunetv2_slicemamba.ops.cuda.scan import OPERATOR

    dtype = x.dtype
    common = torch.promote_types(torch.promote_types(dtype, dt.dtype), torch.promote_types(B.dtype, C.dtype))
    common = torch.float32 if common == torch.float64 else common
    x, dt, B, C = (t if t.dtype == common else t.to(common) for t in (x, dt, B, C))
    bias = None if delta_bias is None else delta_bias.float()
    out = OPERATOR.apply(x, dt, B, C, A.float(), D.float(), bias, dt_weight, tuple(sizes), tuple(thickness))
    return out if common == dtype else out.to(dtype)


def bss(x: Tensor, parameters: BssParameters, thickness: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
    """BSS of x (batch, *sizes, C) in compute type `dtype`, differentiable once; None if x or the block is too large.

    thickness: () for no scans, which torch.compile composes of PyTorch's operators.
    """
    from nnunetv2_slicemamba.ops.cuda import bss_operator, scanless
    from nnunetv2_slicemamba.ops.cuda.bss import fits

    if not fits(x, parameters.conv_bias.shape[0]):
        return None
    if not thickness:
        return None if torch.compiler.is_compiling() else scanless.apply(x, parameters, dtype)
    return bss_operator.apply(x, parameters, thickness, dtype)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor | None:
    """LayerNorm of x (.., C) over its last axis, eps 1e-5, in `dtype`, differentiable once; None if it does not fit."""
    from nnunetv2_slicemamba.ops.cuda import layer_norm as kernels

    return kernels.apply(x, weight, bias, dtype) if kernels.fits(x, weight, dtype) else None


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float) -> Tensor | None:
    """Leaky ReLU of the instance norm of x (B, C, *spatial), differentiable once; None if x is not channels last."""
    from nnunetv2_slicemamba.ops.cuda import instance_norm as kernels

    return kernels.apply(x, weight, bias, eps, slope) if kernels.fits(x, weight, bias) else None
