"""nnU-Net's encoder and decoder, with S3 blocks behind the convolutions of their stages.

Feature maps are in PyTorch's channels-last memory format, so that the tokens of a block are a view of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn

from nnunetv2_slicemamba.nets.bss import CONVOLUTIONS, move_channels_first, move_channels_last
from nnunetv2_slicemamba.nets.conv_norm_act import TRANSPOSED, ConvNormAct, concatenate, in_channels_last
from nnunetv2_slicemamba.nets.encoder import BlockFactory
from nnunetv2_slicemamba.nets.residual_settings import ResidualSettings
from nnunetv2_slicemamba.nets.steps import Skips, Step, applied, keep
from nnunetv2_slicemamba.ops.dtypes import autocast_dtype


class ConvStage(nn.Module):
    """Convolutions at one resolution, the first with the stride, and S3 blocks behind them.

    (B, channels, *spatial) -> (B, width, *(spatial / stride)).
    """

    def __init__(self, convolutions: Sequence[nn.Module], blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(*convolutions)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for block in self.blocks:
            x = block(x)
        return self.leave(x)

    def enter(self, x: Tensor) -> Tensor:
        """What the first block reads: the convolutions' result as tokens (B, *spatial, width)."""
        x = self.convolutions(x)
        return move_channels_last(x) if len(self.blocks) else x

    def leave(self, x: Tensor) -> Tensor:
        """The stage's feature map from what the last block gives."""
        if len(self.blocks) == 0:
            return x
        # under autocast a block's sum may be wider than the feature maps around it
        half = autocast_dtype(x.device)
        return move_channels_first(x if half is None else x.to(half))

    def walk(self) -> Iterator[Step | nn.Module]:
        """The steps and blocks of a pass."""
        yield applied(self.enter)
        yield from self.blocks
        yield applied(self.leave)


class UpStage(ConvStage):
    """Decoder stage: transposed convolution, the skip beside its result, then convolutions and S3 blocks."""

    def __init__(self, upsample: nn.Module, convolutions: Sequence[nn.Module], blocks: Sequence[nn.Module]) -> None:
        super().__init__(convolutions, blocks)
        self.upsample = upsample

    def join(self, x: Tensor, skip: Tensor) -> Tensor:
        """Input of the convolutions: x, from the resolution below, at the skip's, and the skip beside it."""
        return concatenate(in_channels_last(self.upsample(x)), skip)


def convolutions_of(settings: ResidualSettings, stage: int, n: int, into: int, strided: bool) -> list[ConvNormAct]:
    """`n` convolutions of a stage with its kernel; into: channels of the first one's input."""
    width, kernel = settings.features_per_stage[stage], settings.kernel_sizes[stage]
    keep = (1,) * settings.n_dims
    return [
        ConvNormAct(
            width if i else into,
            width,
            kernel,
            settings.strides[stage] if strided and i == 0 else keep,
            settings.norm_eps,
            settings.negative_slope,
        )
        for i in range(n)
    ]


def finish_building(part: nn.Module, slope: float) -> None:
    """Initialises the convolutions outside the blocks as nnU-Net does, and lays their kernels channels last."""
    he = InitWeights_He(slope)
    for module in part.modules():
        convolution = module.conv if isinstance(module, ConvNormAct) else module
        if isinstance(module, (ConvNormAct, *TRANSPOSED.values())):
            he(convolution)
            weight = convolution.get_parameter("weight")
            weight.data = in_channels_last(weight.data)


class ConvEncoder(nn.Module):
    """Encoder: (B, input_channels, *spatial) -> (bottleneck features, skips), (B, C, *spatial).

    The skips are the results of all stages but the last, highest resolution first.
    """

    def __init__(self, settings: ResidualSettings, block: BlockFactory) -> None:
        super().__init__()
        drop_paths = iter(settings.encoder_drop_paths)
        widths = settings.features_per_stage
        self.stages = nn.ModuleList()
        for i, (into, width) in enumerate(zip((settings.input_channels, *widths[:-1]), widths, strict=True)):
            convolutions = convolutions_of(settings, i, settings.n_conv_per_stage[i], into, strided=True)
            blocks = [block(width, next(drop_paths)) for _ in range(settings.n_blocks_per_stage[i])]
            self.stages.append(ConvStage(convolutions, blocks))
        finish_building(self, settings.negative_slope)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = in_channels_last(x)
        made = []
        for stage in self.stages:
            x = stage(x)
            made.append(x)
        return x, made[:-1]

    def walk(self) -> Iterator[Step | nn.Module]:
        """The steps and blocks of a pass."""
        yield applied(in_channels_last)
        for stage in self.stages:
            assert isinstance(stage, ConvStage)
            yield from stage.walk()
            if stage is not self.stages[-1]:
                yield keep


class ConvDecoder(nn.Module):
    """Decoder: features of the encoder -> logits, or a list of them under deep supervision, highest resolution first.

    seg_layers are, as in nnU-Net, ordered from low to high resolution. All are always built, so that weights load with
    and without deep supervision; those that a network without it never uses need no gradient, since unused parameters
    crash DDP. `deep_supervision` may be switched at any time (nnU-Net does, for validation).
    """

    def __init__(self, settings: ResidualSettings, block: BlockFactory) -> None:
        super().__init__()
        drop_paths = iter(settings.decoder_drop_paths)
        widths, n_dims = settings.features_per_stage, settings.n_dims
        self.deep_supervision = settings.deep_supervision
        self.stages, self.seg_layers = nn.ModuleList(), nn.ModuleList()
        for j, stage in enumerate(reversed(range(settings.n_stages - 1))):
            below, width, stride = widths[stage + 1], widths[stage], settings.strides[stage + 1]
            upsample = TRANSPOSED[n_dims](below, width, stride, stride)  # type: ignore[arg-type]
            n = settings.n_conv_per_stage_decoder[j]
            convolutions = convolutions_of(settings, stage, n, 2 * width, strided=False)
            blocks = [block(width, next(drop_paths)) for _ in range(settings.n_blocks_per_stage_decoder[j])]
            self.stages.append(UpStage(upsample, convolutions, blocks))
            self.seg_layers.append(CONVOLUTIONS[n_dims](width, settings.num_classes, kernel_size=1))
        finish_building(self, settings.negative_slope)
        self.seg_layers.apply(InitWeights_He(settings.negative_slope))
        for layer in self.seg_layers[:-1]:
            layer.requires_grad_(settings.deep_supervision)

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor | list[Tensor]:
        outputs = []
        for j, stage in enumerate(self.stages):
            x = stage(self._join(j, x, skips)[0])
            if self.deep_supervision:
                outputs.append(self.logits(x, j))
        return outputs[::-1] if self.deep_supervision else self.logits(x, -1)

    def walk(self) -> Iterator[Step | nn.Module]:
        """The steps and blocks of a pass without deep supervision."""
        for j, stage in enumerate(self.stages):
            assert isinstance(stage, UpStage)
            yield partial(self._join, j)
            yield from stage.walk()
        yield applied(partial(self.logits, stage=-1))

    def _join(self, j: int, x: Tensor, skips: Sequence[Tensor]) -> tuple[Tensor, Skips]:
        """Input of stage j from the features below it and the encoder's skips, and these."""
        stage = self.stages[j]
        assert isinstance(stage, UpStage)
        return stage.join(x, skips[-1 - j]), tuple(skips)

    def logits(self, x: Tensor, stage: int) -> Tensor:
        """Logits (B, classes, *spatial) of a stage's result, contiguous, as losses and predictors read them."""
        logits: Tensor = self.seg_layers[stage](x)
        return logits.contiguous()
