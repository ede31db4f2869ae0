"""What changes resolution: patch embedding, merging, expanding and the final mapping. All channels last."""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor, nn

from nnunetv2_slicemamba.nets.bss import CONVOLUTIONS, move_channels_last


class PatchEmbedding(nn.Module):
    """Non-overlapping patches to tokens: convolution with kernel = stride, then LayerNorm.

    (B, input_channels, *spatial) -> (B, *(spatial / stride), dim); the stride must divide the sizes.
    """

    def __init__(self, input_channels: int, dim: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.proj = CONVOLUTIONS[len(stride)](input_channels, dim, kernel_size=stride, stride=stride)  # type: ignore[arg-type]
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(move_channels_last(self.proj(x)))


class PatchMerging(nn.Module):
    """Neighbours of a stride-sized cell side by side in the channels, LayerNorm, Linear; after Swin and VMamba.

    (B, *spatial, dim) -> (B, *(spatial / stride), dim_out); the first axis's offset varies fastest.
    """

    def __init__(self, dim: int, dim_out: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        cell = math.prod(stride)
        # product() varies its last factor fastest, hence the two reversals
        self.offsets = [tuple(reversed(o)) for o in product(*(range(s) for s in reversed(stride)))]
        self.stride = stride
        self.norm = nn.LayerNorm(cell * dim, eps=1e-5)
        self.reduction = nn.Linear(cell * dim, dim_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        cells = [
            x[tuple([slice(None), *(slice(o, None, s) for o, s in zip(offset, self.stride, strict=True))])]
            for offset in self.offsets
        ]
        return self.reduction(self.norm(torch.cat(cells, dim=-1)))


class PatchExpanding(nn.Module):
    """Linear to a stride-sized cell per token, rearranged to positions, LayerNorm; after Swin-Unet.

    (B, *spatial, dim) -> (B, *(spatial * stride), dim_out); channels are laid out (p_1, .., p_n, c), p_1 slowest.
    """

    def __init__(self, dim: int, dim_out: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.stride, self.dim_out = stride, dim_out
        self.expand = nn.Linear(dim, math.prod(stride) * dim_out, bias=False)
        self.norm = nn.LayerNorm(dim_out, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        n = len(self.stride)
        sizes = x.shape[1:-1]
        x = self.expand(x).unflatten(-1, (*self.stride, self.dim_out))
        # (B, s_1..s_n, p_1..p_n, c) -> (B, s_1, p_1, .., s_n, p_n, c)
        order = [0, *(axis for i in range(n) for axis in (1 + i, 1 + n + i)), 2 * n + 1]
        x = x.permute(order).reshape(x.shape[0], *(s * p for s, p in zip(sizes, self.stride, strict=True)), -1)
        return self.norm(x)
