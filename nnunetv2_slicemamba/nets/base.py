"""Base of the final network and the supernet: encoder and decoder, padding, and nnU-Net's expectations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from dynamic_network_architectures.architectures.abstract_arch import AbstractDynamicNetworkArchitectures
from torch import Tensor, nn
from torch.nn import functional as F

from nnunetv2_slicemamba.nets.bss import initialize
from nnunetv2_slicemamba.nets.checks import check_image
from nnunetv2_slicemamba.nets.conv_stages import ConvDecoder, ConvEncoder
from nnunetv2_slicemamba.nets.decoder import Decoder
from nnunetv2_slicemamba.nets.encoder import BlockFactory, Encoder
from nnunetv2_slicemamba.nets.finite import warn_of_values
from nnunetv2_slicemamba.nets.residual_settings import ResidualSettings
from nnunetv2_slicemamba.nets.settings import NetworkSettings, SharedSettings
from nnunetv2_slicemamba.nets.steps import Step, around_blocks


class SliceMambaBase(AbstractDynamicNetworkArchitectures):
    """Encoder and decoder around a block of the subclass's kind; block(dim, drop_path) makes one.

    settings: NetworkSettings make the paper's network and hybrids, ResidualSettings nnU-Net's with added blocks.
    """

    key_to_encoder = "encoder"
    key_to_stem = "encoder.patch_embedding"
    keys_to_in_proj: tuple[str, ...] = ("encoder.patch_embedding.proj",)
    key_to_lpe = None
    encoder: Encoder | ConvEncoder
    decoder: Decoder | ConvDecoder

    def __init__(self, settings: SharedSettings, block: BlockFactory) -> None:
        super().__init__()
        self.settings = settings
        self.n_dims, self.strides = settings.n_dims, settings.strides
        self.total_stride, self.output_scales = settings.total_stride, settings.output_scales
        self.n_encoder_blocks = sum(settings.n_blocks_per_stage)
        self.n_blocks = self.n_encoder_blocks + sum(settings.n_blocks_per_stage_decoder)
        if isinstance(settings, ResidualSettings):
            self.key_to_stem = "encoder.stages.0"
            self.keys_to_in_proj = ("encoder.stages.0.convolutions.0.conv",)
            self.encoder, self.decoder = ConvEncoder(settings, block), ConvDecoder(settings, block)
        else:
            assert isinstance(settings, NetworkSettings)
            if settings.stem_features:
                self.key_to_stem = "encoder.stem"
                # the blocks of the library hold every convolution under two names
                names = ("conv", "all_modules.0")
                self.keys_to_in_proj = tuple(f"encoder.stem.stages.0.convs.0.{name}" for name in names)
            self.encoder, self.decoder = Encoder(settings, block), Decoder(settings, block)
        self.apply(initialize)
        self.has_warned = False  # of values that are not finite

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """Initialisation hook that nnU-Net applies to every module after building; BSS's scan parameters stay."""
        initialize(module)

    def named_block_positions(self) -> Iterator[tuple[str, nn.Module]]:
        """Name and block of every block position in network order: encoder stages first, then decoder stages."""
        for part in ("encoder", "decoder"):
            for i, stage in enumerate(getattr(self, part).stages):
                for j, block in enumerate(stage.blocks):
                    yield f"{part}.stages.{i}.blocks.{j}", block

    def block_positions(self) -> list[nn.Module]:
        """The blocks in network order, the order of an architecture's and a slicing's entries."""
        return [block for _, block in self.named_block_positions()]

    def steps(self) -> list[Step]:
        """What is computed before each block and, last, behind all of them, without deep supervision.

        Blocks + 1 functions of features and skips. The first takes images that need no padding, and no skips; the last
        gives the logits. Steps and blocks in turn are the forward pass, operation by operation.
        """
        return around_blocks((*self.encoder.walk(), *self.decoder.walk()))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits: (B, input_channels, *spatial) -> (B, num_classes, *spatial), any spatial size.

        Under deep supervision a list of logits, highest resolution first, at `output_scales`. Raises ValueError for x
        of another shape or of a whole-number type. In evaluation on a CPU, NaN or infinite values in x raise a
        RuntimeWarning, once per network. On other devices nothing checks for them.
        """
        if not torch.jit.is_tracing():  # what compares sizes would become a part of the trace
            check_image(x, self.settings.input_channels, self.n_dims)
        if not self.training and not self.has_warned and warn_of_values(x):
            self.has_warned = True
        # sizes are tensors while TorchScript traces
        sizes = [int(size) for size in x.shape[2:]] if torch.jit.is_tracing() else x.shape[2:]
        padding = [-size % step for size, step in zip(sizes, self.total_stride, strict=True)]
        padded = any(padding)
        if padded:
            # F.pad counts from the last axis; each axis is padded at its end only
            x = F.pad(x, [amount for axis in reversed(padding) for amount in (0, axis)])
        output = self.decoder(*self.encoder(x))
        if not padded:
            return output
        if isinstance(output, list):
            return [self._crop(o, sizes, scale) for o, scale in zip(output, self.output_scales, strict=True)]
        return self._crop(output, sizes, self.output_scales[0])

    @staticmethod
    def _crop(output: Tensor, sizes: Sequence[int], scale: Sequence[float]) -> Tensor:
        cropped = [max(1, round(size * s)) for size, s in zip(sizes, scale, strict=True)]
        return output[tuple([slice(None), slice(None), *(slice(size) for size in cropped)])]
