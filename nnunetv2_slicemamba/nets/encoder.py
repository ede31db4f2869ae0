"""The encoder: patch embedding or convolutional stem, then stages of S3 blocks with patch merging between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from nnunetv2_slicemamba.nets.resampling import PatchEmbedding, PatchMerging
from nnunetv2_slicemamba.nets.resolutions import PAPER, Extras
from nnunetv2_slicemamba.nets.stem import Stem

BlockFactory = Callable[[int, float], nn.Module]  # (dim, drop_path) -> block on (B, *spatial, dim)


class EncoderStage(nn.Module):
    """S3 blocks at one resolution, entered through patch merging in every stage but the first."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the output and what entered the first block."""
        x = entered = self.downsample(x)
        for block in self.blocks:
            x = block(x)
        return x, entered


class Encoder(nn.Module):
    """(B, input_channels, *spatial) -> (bottleneck features, skips), highest resolution first.

    The skips are the inputs of every stage, channels last, and before them the features of a stem's stages, channels
    first. features_per_stage, strides, n_blocks_per_stage: one entry per stage; strides[0] is the patch embedding's,
    or the whole stem's. drop_paths: stochastic depth of every block, in order.
    """

    def __init__(
        self,
        input_channels: int,
        features_per_stage: Sequence[int],
        strides: Sequence[tuple[int, ...]],
        n_blocks_per_stage: Sequence[int],
        drop_paths: Sequence[float],
        block: BlockFactory,
        extras: Extras = PAPER,
    ) -> None:
        super().__init__()
        rates = iter(drop_paths)
        self.stem: Stem | None = None
        if extras.stem_features:
            convolutions = extras.n_conv_per_stem_stage
            self.stem = Stem(input_channels, extras.stem_features, features_per_stage[0], strides[0], convolutions)
        else:
            self.patch_embedding = PatchEmbedding(input_channels, features_per_stage[0], strides[0])
        self.stages = nn.ModuleList()
        for i, (dim, n_blocks) in enumerate(zip(features_per_stage, n_blocks_per_stage, strict=True)):
            downsample = PatchMerging(features_per_stage[i - 1], dim, strides[i]) if i else nn.Identity()
            self.stages.append(EncoderStage(downsample, [block(dim, next(rates)) for _ in range(n_blocks)]))

    def embed(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The tokens that enter the first stage, and the skips that a stem has made on the way."""
        if self.stem is not None:
            return self.stem(x)
        return self.patch_embedding(x), []

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, skips = self.embed(x)
        for stage in self.stages:
            x, entered = stage(x)
            skips.append(entered)
        return x, skips
