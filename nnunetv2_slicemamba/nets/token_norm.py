"""LayerNorm over the channels of tokens, by the CUDA backend's kernels where they run."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPSILON = 1e-5


class TokenNorm(nn.LayerNorm):
    """nn.LayerNorm over `channels`, eps 1e-5, with the same parameters and results.

    rounded: under autocast the result has autocast's type instead of float32, for norms that only a matrix product
    or a convolution reads, which would round it to that type anyway. (.., channels) -> the same shape.
    """

    def __init__(self, channels: int, rounded: bool = False) -> None:
        super().__init__(channels, eps=EPSILON)
        self.rounded = rounded

    def forward(self, x: Tensor) -> Tensor:
        # a compiler fuses PyTorch's own operator with its neighbours
        if not x.is_cuda or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return super().forward(x)
        from nnunetv2_slicemamba.ops.cuda import layer_norm

        dtype = x.dtype
        if torch.is_autocast_enabled("cuda"):
            dtype = torch.get_autocast_dtype("cuda") if self.rounded else torch.float32
        if not layer_norm.takes(x, self.weight, dtype):
            return super().forward(x)
        return layer_norm.apply(x, self.weight, self.bias, dtype)
