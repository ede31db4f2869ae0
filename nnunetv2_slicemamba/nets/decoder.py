"""The decoder: S3 stages from the bottleneck upwards, skips by addition, and the segmentation heads."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nnunetv2_slicemamba.nets.bss import CONVOLUTIONS, move_channels_first
from nnunetv2_slicemamba.nets.encoder import BlockFactory
from nnunetv2_slicemamba.nets.resampling import FinalMapping, PatchExpanding


class DecoderStage(nn.Module):
    """S3 blocks at one resolution, entered through patch expanding in every stage but the first."""

    def __init__(self, upsample: nn.Module, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.upsample = upsample
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = self.upsample(x)
        for block in self.blocks:
            x = block(x)
        return x


class Decoder(nn.Module):
    """Features of the encoder -> logits, or a list of them under deep supervision.

    Stage 0 works on the bottleneck; before stage j the input of encoder stage S-j is added (S stages), then stage j
    expands it to the next higher resolution. The output after the last stage is mapped to full resolution.

    seg_layers are, as in nnU-Net, ordered from low to high resolution: the last is the full resolution's, the others
    read decoder stages 1 .. S-1. All are always built, so that weights load with and without deep supervision;
    those that a network without it never uses need no gradient, since unused parameters crash DDP.
    `deep_supervision` may be switched at any time (nnU-Net does, for validation).
    """

    def __init__(
        self,
        num_classes: int,
        features_per_stage: Sequence[int],
        strides: Sequence[tuple[int, ...]],
        n_blocks_per_stage: Sequence[int],
        drop_paths: Sequence[float],
        block: BlockFactory,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        rates = iter(drop_paths)
        features, steps = list(reversed(features_per_stage)), list(reversed(strides))
        n_dims = len(strides[0])
        self.deep_supervision = deep_supervision
        self.stages = nn.ModuleList()
        for j, (dim, n_blocks) in enumerate(zip(features, n_blocks_per_stage, strict=True)):
            upsample = PatchExpanding(features[j - 1], dim, steps[j - 1]) if j else nn.Identity()
            self.stages.append(DecoderStage(upsample, [block(dim, next(rates)) for _ in range(n_blocks)]))
        self.final_mapping = FinalMapping(features[-1], features[-1] // 4, strides[0])

        convolution = CONVOLUTIONS[n_dims]
        widths = [*features[1:], features[-1] // 4]
        self.seg_layers = nn.ModuleList(convolution(width, num_classes, kernel_size=1) for width in widths)
        for layer in self.seg_layers[:-1]:
            layer.requires_grad_(deep_supervision)

    def forward(self, x: Tensor, encoder_inputs: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """x: (B, *spatial, C) bottleneck; encoder_inputs: input of every encoder stage, in order.

        Returns (B, classes, *full resolution), or the list of all resolutions, highest first.
        """
        outputs = []
        for j, stage in enumerate(self.stages):
            x = stage(x + encoder_inputs[len(self.stages) - j] if j else x)
            if j and self.deep_supervision:
                outputs.append(self.seg_layers[j - 1](move_channels_first(x)))
        full = self.final_mapping(x, self.seg_layers[-1])
        return [full, *reversed(outputs)] if self.deep_supervision else full
