"""The encoder: patch embedding or convolutional stem, then stages of S3 blocks with patch merging between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

from nnunetv2_slicemamba.nets.resampling import PatchEmbedding, PatchMerging
from nnunetv2_slicemamba.nets.settings import NetworkSettings
from nnunetv2_slicemamba.nets.stem import Stem
from nnunetv2_slicemamba.nets.steps import Skips, Step, applied, keep

BlockFactory = Callable[[int, float], nn.Module]  # (dim, drop_path) -> block on (B, *spatial, dim)


class EncoderStage(nn.Module):
    """S3 blocks at one resolution, entered through patch merging in every stage but the first."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Output of the last block, and input of the first one."""
        x = entered = self.downsample(x)
        for block in self.blocks:
            x = block(x)
        return x, entered


class Encoder(nn.Module):
    """Encoder: (B, input_channels, *spatial) -> (bottleneck features, skips), highest resolution first.

    The skips are the inputs of every stage, channels last, and before them the features of a stem's stages, channels
    first.
    """

    def __init__(self, settings: NetworkSettings, block: BlockFactory) -> None:
        super().__init__()
        features, strides = settings.features_per_stage, settings.strides
        drop_paths = iter(settings.encoder_drop_paths)
        self.stem: Stem | None = None
        if settings.stem_features:
            convolutions = settings.n_conv_per_stem_stage
            self.stem = Stem(settings.input_channels, settings.stem_features, features[0], strides[0], convolutions)
        else:
            self.patch_embedding = PatchEmbedding(settings.input_channels, features[0], strides[0])
        self.stages = nn.ModuleList()
        for i, (dim, n_blocks) in enumerate(zip(features, settings.n_blocks_per_stage, strict=True)):
            downsample = PatchMerging(features[i - 1], dim, strides[i]) if i else nn.Identity()
            self.stages.append(EncoderStage(downsample, [block(dim, next(drop_paths)) for _ in range(n_blocks)]))

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

    def walk(self) -> Iterator[Step | nn.Module]:
        """The steps and blocks of a pass."""
        yield self._begin
        for stage in self.stages:
            assert isinstance(stage, EncoderStage)
            yield applied(stage.downsample)
            yield keep
            yield from stage.blocks

    def _begin(self, x: Tensor, skips: Skips) -> tuple[Tensor, Skips]:
        x, made = self.embed(x)
        return x, (*skips, *made)
