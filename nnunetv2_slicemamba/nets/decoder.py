"""The decoder: S3 stages from the bottleneck upwards, skips from the encoder, and the segmentation heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from nnunetv2_slicemamba.nets.bss import CONVOLUTIONS, move_channels_first
from nnunetv2_slicemamba.nets.encoder import BlockFactory
from nnunetv2_slicemamba.nets.resampling import FinalMapping, PatchExpanding
from nnunetv2_slicemamba.nets.settings import NetworkSettings
from nnunetv2_slicemamba.nets.stem import StemDecoder
from nnunetv2_slicemamba.nets.steps import Skips, Step


class DecoderStage(nn.Module):
    """S3 blocks at one resolution, entered through skip and patch expanding in every stage but the first.

    fuse: from the channels and, beside them, those of the skip to as many as before; without it the skip is added.
    """

    def __init__(self, upsample: nn.Module, blocks: Sequence[nn.Module], fuse: nn.Linear | None = None) -> None:
        super().__init__()
        self.upsample = upsample
        self.fuse = fuse
        self.blocks = nn.ModuleList(blocks)

    def enter(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Input of the first block; x and skip: (B, *spatial, C) alike, at the resolution below."""
        if skip is not None:
            x = x + skip if self.fuse is None else self.fuse(torch.cat([x, skip], dim=-1))
        return self.upsample(x)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        x = self.enter(x, skip)
        for block in self.blocks:
            x = block(x)
        return x


class Decoder(nn.Module):
    """Decoder: features of the encoder -> logits, or a list of them under deep supervision.

    Stage 0 works on the bottleneck; before stage j the input of encoder stage S-j is added (S stages), or joined by a
    Linear, then stage j expands it to the next higher resolution. The output after the last stage is mapped to full
    resolution, by convolutions with the stem's features where the encoder has a stem.

    seg_layers are, as in nnU-Net, ordered from low to high resolution: the last is the full resolution's, the others
    read decoder stages 1 .. S-1 and the stem's part below full resolution. All are always built, so that weights load
    with and without deep supervision; those that a network without it never uses need no gradient, since unused
    parameters crash DDP.
    `deep_supervision` may be switched at any time (nnU-Net does, for validation).
    """

    def __init__(self, settings: NetworkSettings, block: BlockFactory) -> None:
        super().__init__()
        drop_paths = iter(settings.decoder_drop_paths)
        features, steps = settings.features_per_stage[::-1], settings.strides[::-1]
        self.deep_supervision = settings.deep_supervision
        self.stages = nn.ModuleList()
        for j, (dim, n_blocks) in enumerate(zip(features, settings.n_blocks_per_stage_decoder, strict=True)):
            upsample = PatchExpanding(features[j - 1], dim, steps[j - 1]) if j else nn.Identity()
            own = [block(dim, next(drop_paths)) for _ in range(n_blocks)]
            joined = j > 0 and settings.skip == "concatenate"
            fuse = nn.Linear(2 * features[j - 1], features[j - 1], bias=False) if joined else None
            self.stages.append(DecoderStage(upsample, own, fuse))
        self.embedding_skip = settings.embedding_skip
        self.stem: StemDecoder | None = None
        stem, stride = settings.stem_features, settings.strides[0]
        widths = [*features[1:], *reversed(stem)]
        if stem:
            self.stem = StemDecoder(stem, features[-1], stride, settings.n_conv_per_stem_stage)
        else:
            self.final_mapping = FinalMapping(features[-1], features[-1] // 4, stride)
            widths.append(features[-1] // 4)

        convolution = CONVOLUTIONS[settings.n_dims]
        self.seg_layers = nn.ModuleList(convolution(width, settings.num_classes, kernel_size=1) for width in widths)
        for layer in self.seg_layers[:-1]:
            layer.requires_grad_(settings.deep_supervision)

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Logits (B, classes, *full resolution), or the list of all resolutions', highest first.

        x: (B, *spatial, C) bottleneck. skips: as the encoder gives them.
        """
        outputs = []
        for j, stage in enumerate(self.stages):
            x = stage(x, skips[-j] if j else None)
            if j and self.deep_supervision:
                outputs.append(self.seg_layers[j - 1](move_channels_first(x)))
        finest = self.finish(x, skips)
        return [*finest, *reversed(outputs)] if self.deep_supervision else finest[0]

    def finish(self, x: Tensor, skips: Sequence[Tensor]) -> list[Tensor]:
        """Logits at full resolution and, under deep supervision, after them those at a stem's other resolutions.

        x: (B, *spatial, C), the last stage's result. skips: the encoder's. Highest resolution first.
        """
        if self.stem is None:
            x = x + skips[0] if self.embedding_skip else x
            return [self.final_mapping(x, self.seg_layers[-1])]
        made = self.stem(x, skips[: len(self.stem.stages)])
        count = len(made) if self.deep_supervision else 1
        return [self.seg_layers[-i](made[-i]) for i in range(1, count + 1)]

    def walk(self) -> Iterator[Step | nn.Module]:
        """The steps and blocks of a pass without deep supervision."""
        for j, stage in enumerate(self.stages):
            assert isinstance(stage, DecoderStage)
            yield partial(self._enter, j)
            yield from stage.blocks
        yield self._finish

    def _enter(self, j: int, x: Tensor, skips: Skips) -> tuple[Tensor, Skips]:
        stage = self.stages[j]
        assert isinstance(stage, DecoderStage)
        return stage.enter(x, skips[-j] if j else None), skips

    def _finish(self, x: Tensor, skips: Skips) -> tuple[Tensor, Skips]:
        return self.finish(x, skips)[0], skips
