"""Convolutional stages at high resolution: before the S3 encoder, and behind the S3 decoder with skips from there.

nnU-Net's blocks (dynamic_network_architectures), nnU-Net's kind of decoder. Channels first and contiguous between the
stages: InstanceNorm makes its input contiguous, so that another memory format would be copied at every convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from dynamic_network_architectures.building_blocks.helper import get_matching_convtransp, get_matching_instancenorm
from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn

from nnunetv2_slicemamba.nets.bss import CONVOLUTIONS, move_channels_first, move_channels_last
from nnunetv2_slicemamba.nets.resolutions import stem_strides
from nnunetv2_slicemamba.nets.token_norm import TokenNorm

NEGATIVE_SLOPE = 1e-2


def kernel_of(stride: Sequence[int]) -> list[int]:
    """Kernel size: 3 on every axis, or the next odd size that leaves no voxel out.

    Padded by half of it, sizes divide exactly.
    """
    return [max(3, s | 1) for s in stride]


def convolutions(n: int, channels_in: int, channels_out: int, stride: tuple[int, ...]) -> StackedConvBlocks:
    """Stage of n times convolution, InstanceNorm, LeakyReLU, the first with the stride, as in nnU-Net's plans.

    (B, channels_in, *spatial) -> (B, channels_out, *(spatial / stride)).
    """
    operation = CONVOLUTIONS[len(stride)]
    return StackedConvBlocks(
        n,
        operation,
        channels_in,
        channels_out,
        kernel_of(stride),
        list(stride),
        conv_bias=True,
        norm_op=get_matching_instancenorm(operation),
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True, "negative_slope": NEGATIVE_SLOPE},
    )


class StridedEmbedding(nn.Module):
    """Feature maps to tokens: strided convolution with overlapping kernels, LayerNorm.

    (B, channels, *spatial) -> (B, *(spatial / stride), dim).
    """

    def __init__(self, channels: int, dim: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        kernel = kernel_of(stride)
        padding = tuple(k // 2 for k in kernel)
        self.proj = CONVOLUTIONS[len(stride)](channels, dim, tuple(kernel), stride, padding)  # type: ignore[arg-type]
        self.norm = TokenNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(move_channels_last(self.proj(x)))


class Stem(nn.Module):
    """Stem in the patch embedding's place: convolutional stages from full resolution downwards, then the tokens.

    features: channels per stage. dim, stride: of the first S3 stage; the steps to it are `stem_strides`.
    (B, input_channels, *spatial) -> (tokens (B, *(spatial / stride), dim), features of every stage, channels first,
    highest resolution first).
    """

    def __init__(
        self, input_channels: int, features: Sequence[int], dim: int, stride: tuple[int, ...], n_convolutions: int
    ) -> None:
        super().__init__()
        steps = stem_strides(stride, len(features))
        into = [(1,) * len(stride), *steps[:-1]]
        self.stages = nn.ModuleList(
            convolutions(n_convolutions, below, width, step)
            for below, width, step in zip([input_channels, *features[:-1]], features, into, strict=True)
        )
        self.embedding = StridedEmbedding(features[-1], dim, steps[-1])
        self.apply(InitWeights_He(NEGATIVE_SLOPE))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return self.embedding(x), skips


class StemDecoder(nn.Module):
    """Decoder stages from the last S3 stage to full resolution; arguments as Stem's.

    Per stage of the stem a transposed convolution, the stem's features beside its result, convolutions.

    forward(x, skips): x (B, *spatial, dim) tokens, skips as Stem gives them. Returns features of every resolution,
    channels first, lowest resolution first.
    """

    def __init__(self, features: Sequence[int], dim: int, stride: tuple[int, ...], n_convolutions: int) -> None:
        super().__init__()
        widths, steps = [dim, *reversed(features)], stem_strides(stride, len(features))
        transposed = get_matching_convtransp(CONVOLUTIONS[len(stride)])
        # the S3 stages end in a sum over their blocks, of whatever size
        self.norm = TokenNorm(dim, rounded=True)
        self.upsamples = nn.ModuleList(
            transposed(below, width, step, step)
            for below, width, step in zip(widths[:-1], widths[1:], reversed(steps), strict=True)
        )
        self.stages = nn.ModuleList(
            convolutions(n_convolutions, 2 * width, width, (1,) * len(stride)) for width in widths[1:]
        )
        self.apply(InitWeights_He(NEGATIVE_SLOPE))

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> list[Tensor]:
        x = move_channels_first(self.norm(x)).contiguous()
        made = []
        for upsample, stage, skip in zip(self.upsamples, self.stages, reversed(skips), strict=True):
            x = stage(torch.cat([upsample(x), skip], dim=1))
            made.append(x)
        return made
