"""LayerNorm over the channels of tokens, by kernels of the backend that scans where it has them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnunetv2_slicemamba.ops.dtypes import autocast_dtype, block_dtype
from nnunetv2_slicemamba.ops.fused import EPSILON, fused_layer_norm


class TokenNorm(nn.LayerNorm):
    """LayerNorm over `channels`, eps 1e-5, with the parameters and results of nn.LayerNorm.

    PyTorch computes it where the attribute `eps` was changed.

    rounded: under autocast the result has autocast's type instead of float32, for norms that only a matrix product
    or a convolution reads, which would round it to that type anyway. for_block: the same for one that a BSS reads, in
    its `block_dtype`. (.., channels) -> the same shape.
    """

    def __init__(self, channels: int, rounded: bool = False, for_block: bool = False) -> None:
        super().__init__(channels, eps=EPSILON)
        self.rounded = rounded
        self.for_block = for_block

    def forward(self, x: Tensor) -> Tensor:
        # a compiler fuses PyTorch's own operator with its neighbours
        if self.eps != EPSILON or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return super().forward(x)
        out = fused_layer_norm(x, self.weight, self.bias, self.result_dtype(x.dtype, x.device))
        return super().forward(x) if out is None else out

    def result_dtype(self, dtype: torch.dtype, device: torch.device) -> torch.dtype:
        """Output dtype of a backend's kernel for an input of `dtype` on `device`, under the present autocast."""
        half = autocast_dtype(device)
        if half is None:
            return dtype
        if self.for_block:
            # the kernels know one half type at a time
            return block_dtype(half) if dtype in (torch.float32, block_dtype(half)) else torch.float32
        return half if self.rounded else torch.float32
