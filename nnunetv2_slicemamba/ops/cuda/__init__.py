"""The scan on NVIDIA GPUs: CUDA C++ kernels that are compiled at run time, with no toolkit to install."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from nnunetv2_slicemamba.ops import operator
from nnunetv2_slicemamba.ops.cuda import cubins, driver

__all__ = ["scan", "why_not"]

OLDEST_CAPABILITY = (8, 0)


@torch.compiler.assume_constant_result
def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why these kernels cannot run on `device` with tokens of type `dtype`; None if they can. Never raises."""
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
    """What CUDA device `device` or this machine lacks."""
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
    """`slice_scan` on a GPU for checked arguments; differentiable, (batch, L, E) in x's type.

    x (batch, L, E) tokens in raster order, dt (batch, L, K, E), or (batch, L, K, R) with dt_weight (K, E, R), before
    bias and softplus, B and C (batch, L, K, N), A (K, E, N), D and delta_bias (K, E), N at most 32. The recurrence is
    computed in float32. float16 results and gradients beyond 65504 become +-65504, NaN stays; the float32 gradients of
    A and D are never clipped, so that a gradient scaler still notices an infinite dy. Saved for the backward pass
    beside the inputs: one state per 32 tokens (16 on GPUs with little shared memory or above 16 states), in bfloat16
    for half inputs. Runs on the current stream; two runs give the same bits. Raises ValueError for too large an N.
    After Gu & Dao 2023 (S6) and Fan et al. 2025 (slicing).
    """
    dtype = x.dtype
    common = torch.promote_types(torch.promote_types(dtype, dt.dtype), torch.promote_types(B.dtype, C.dtype))
    common = torch.float32 if common == torch.float64 else common
    x, dt, B, C = (t if t.dtype == common else t.to(common) for t in (x, dt, B, C))
    bias = None if delta_bias is None else delta_bias.float()
    out = operator.apply(x, dt, B, C, A.float(), D.float(), bias, dt_weight, tuple(sizes), tuple(thickness))
    return out if common == dtype else out.to(dtype)
