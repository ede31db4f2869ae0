"""Whole BSS blocks and LayerNorms by kernels of the backend that scans, where it has such kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nnunetv2_slicemamba.ops.backends import BACKENDS, block_backend
from nnunetv2_slicemamba.ops.bss_parameters import BssParameters
from nnunetv2_slicemamba.ops.dtypes import autocast_dtype, block_dtype
from nnunetv2_slicemamba.ops.loop_scan import is_exporting

EPSILON = 1e-5  # of the LayerNorms that backends have kernels for


def fused_bss(x: Tensor, parameters: Callable[[], BssParameters], thickness: tuple[int, ...]) -> Tensor | None:
    """BSS of x (batch, *sizes, C), differentiable once; None where it has to be composed of PyTorch's operators.

    Computed in x's type, under autocast in `block_dtype` of autocast's. Modules converted to half precision are
    composed: they compute as PyTorch decides. thickness: () for the skip term in place of the scans. parameters: called
    only where a backend has kernels for whole blocks.
    """
    half = autocast_dtype(x.device)
    dtype = x.dtype if half is None else block_dtype(half)
    name = None if is_exporting() else block_backend(x.device, dtype)
    whole = None if name is None else BACKENDS[name].bss
    accepted = (dtype, torch.float32) if half is None else (dtype, torch.float32, torch.float16)
    if whole is None or x.dtype not in accepted:
        return None
    own = parameters()
    return whole(x, own, thickness, dtype) if all(p.dtype == torch.float32 for p in own) else None


def fused_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor | None:
    """LayerNorm of x (.., C) over its last axis, eps 1e-5, with a result of type `dtype`; None where PyTorch has to.

    weight, bias: (C,).
    """
    name = block_backend(x.device, dtype)
    norm = None if name is None else BACKENDS[name].layer_norm
    return None if norm is None else norm(x, weight, bias, dtype)
