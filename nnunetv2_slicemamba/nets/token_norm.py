"""LayerNorm over the channels of tokens, by the CUDA backend's kernels where they run."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPSILON = 1e-5


def block_type(dtype: torch.dtype) -> torch.dtype:
    """The type that a block on a GPU computes in where autocast asks for `dtype`: bfloat16 instead of float16.

    A scan's result is a product of three things that grow while a network learns, and is normalised only afterwards:
    after a few epochs it reaches 1e7, with a gradient as small as that is large. float16 holds neither.
    """
    return torch.bfloat16 if dtype == torch.float16 else dtype


class TokenNorm(nn.LayerNorm):
    """nn.LayerNorm over `channels`, eps 1e-5, with the same parameters and results.

    rounded: under autocast the result has autocast's type instead of float32, for norms that only a matrix product
    or a convolution reads, which would round it to that type anyway. for_block: the same for one that a BSS reads, in
    its `block_type`. (.., channels) -> the same shape.
    """

    def __init__(self, channels: int, rounded: bool = False, for_block: bool = False) -> None:
        super().__init__(channels, eps=EPSILON)
        self.rounded = rounded
        self.for_block = for_block

    def forward(self, x: Tensor) -> Tensor:
        # a compiler fuses PyTorch's own operator with its neighbours
        if not x.is_cuda or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return super().forward(x)
        from nnunetv2_slicemamba.ops.cuda import layer_norm

        dtype = self.result_type(x.dtype)
        if not layer_norm.takes(x, self.weight, dtype):
            return super().forward(x)
        return layer_norm.apply(x, self.weight, self.bias, dtype)

    def result_type(self, dtype: torch.dtype) -> torch.dtype:
        """Of the kernels' result on a GPU for an input of type `dtype`, under the present autocast."""
        if not torch.is_autocast_enabled("cuda"):
            return dtype
        half = torch.get_autocast_dtype("cuda")
        if self.for_block:
            # the kernels know one half type at a time
            return block_type(half) if dtype in (torch.float32, block_type(half)) else torch.float32
        return half if self.rounded else torch.float32
