"""Changes of resolution: patch embedding, merging, expanding and the final mapping. All channels last."""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunetv2_slicemamba.nets.bss import CONVOLUTIONS, move_channels_last
from nnunetv2_slicemamba.nets.token_norm import TokenNorm


class PatchEmbedding(nn.Module):
    """Non-overlapping patches to tokens: convolution with kernel = stride, then LayerNorm.

    (B, input_channels, *spatial) -> (B, *(spatial / stride), dim); the stride must divide the sizes.
    """

    def __init__(self, input_channels: int, dim: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.proj = CONVOLUTIONS[len(stride)](input_channels, dim, kernel_size=stride, stride=stride)  # type: ignore[arg-type]
        self.norm = TokenNorm(dim)

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
        self.norm = TokenNorm(cell * dim, rounded=True)
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
        self.norm = TokenNorm(dim_out)

    def cells(self, x: Tensor) -> Tensor:
        """Positions of a cell still side by side: (B, s_1..s_n, p_1..p_n, dim_out), not normalised."""
        return self.expand(x).unflatten(-1, (*self.stride, self.dim_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(arrange_cells(self.cells(x), len(self.stride)))


class FinalMapping(PatchExpanding):
    """PatchExpanding whose result only a 1x1 convolution reads, which is applied before the rearrangement.

    Norm and convolution take every position by itself, so that the order changes nothing but what has to be moved:
    the logits instead of all channels. forward(x, head): (B, *spatial, dim) -> (B, classes, *(spatial * stride)).
    """

    def __init__(self, dim: int, dim_out: int, stride: tuple[int, ...]) -> None:
        super().__init__(dim, dim_out, stride)
        self.norm.rounded = True

    def forward(self, x: Tensor, head: nn.Conv2d | nn.Conv3d) -> Tensor:  # type: ignore[override]
        logits = F.linear(self.norm(self.cells(x)), head.weight.flatten(1), head.bias)
        return arrange_cells(logits, len(self.stride), channels_first=True)


def arrange_cells(x: Tensor, n: int, channels_first: bool = False) -> Tensor:
    """Cells in place: (B, s_1..s_n, p_1..p_n, c) -> (B, s_1 p_1, .., s_n p_n, c), or (B, c, ..) if `channels_first`."""
    axes = [axis for i in range(n) for axis in (1 + i, 1 + n + i)]
    sizes = [x.shape[1 + i] * x.shape[1 + n + i] for i in range(n)]
    if channels_first:
        return x.permute(0, 2 * n + 1, *axes).reshape(x.shape[0], x.shape[-1], *sizes)
    return x.permute(0, *axes, 2 * n + 1).reshape(x.shape[0], *sizes, x.shape[-1])
