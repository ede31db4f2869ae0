"""What the final network and the supernet share: settings, padding, and nnU-Net's expectations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise, product

import numpy as np
import torch
from dynamic_network_architectures.architectures.abstract_arch import AbstractDynamicNetworkArchitectures
from torch import Tensor, nn
from torch.nn import functional as F

from nnunetv2_slicemamba.nets.bss import initialize
from nnunetv2_slicemamba.nets.decoder import Decoder
from nnunetv2_slicemamba.nets.encoder import BlockFactory, Encoder
from nnunetv2_slicemamba.nets.resolutions import PAPER, Extras, output_scales

Slicing = Sequence[Sequence[int]]


def default_candidates(n_dims: int) -> tuple[tuple[int, ...], ...]:
    """The general candidate set {2, 4}^n; in 2D index 0..3 is (2,2), (2,4), (4,2), (4,4), as published."""
    return tuple(product((2, 4), repeat=n_dims))


class SliceMambaBase(AbstractDynamicNetworkArchitectures):
    """Encoder and decoder around a block of the subclass's kind; see SliceMambaUNet for the arguments."""

    key_to_encoder = "encoder"
    key_to_stem = "encoder.patch_embedding"
    keys_to_in_proj: tuple[str, ...] = ("encoder.patch_embedding.proj",)
    key_to_lpe = None

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        n_stages: int,
        features_per_stage: Sequence[int],
        strides: Sequence[Sequence[int]],
        n_blocks_per_stage: Sequence[int],
        n_blocks_per_stage_decoder: Sequence[int],
        drop_path_rate: float,
        deep_supervision: bool,
        block: BlockFactory,
        extras: Extras = PAPER,
    ) -> None:
        super().__init__()
        steps = [tuple(int(s) for s in stride) for stride in strides]
        check_settings(n_stages, features_per_stage, steps, n_blocks_per_stage, n_blocks_per_stage_decoder, extras)
        self.n_dims = len(steps[0])
        self.strides = steps
        self.total_stride = tuple(math.prod(axis) for axis in zip(*steps, strict=True))
        self.output_scales = output_scales(steps, len(extras.stem_features))
        if extras.stem_features:
            self.key_to_stem = "encoder.stem"
            # the blocks of the library hold every convolution under two names
            self.keys_to_in_proj = tuple(f"encoder.stem.stages.0.convs.0.{name}" for name in ("conv", "all_modules.0"))
        n_encoder, n_decoder = sum(n_blocks_per_stage), sum(n_blocks_per_stage_decoder)
        self.n_blocks = n_encoder + n_decoder
        self.encoder = Encoder(
            input_channels,
            features_per_stage,
            steps,
            n_blocks_per_stage,
            np.linspace(0, drop_path_rate, n_encoder).tolist(),
            block,
            extras,
        )
        self.decoder = Decoder(
            num_classes,
            features_per_stage,
            steps,
            n_blocks_per_stage_decoder,
            np.linspace(drop_path_rate, 0, n_decoder).tolist(),
            block,
            deep_supervision,
            extras,
        )
        self.apply(initialize)

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """nnU-Net applies this to every module after building; BSS's scan parameters stay as drawn."""
        initialize(module)

    def named_block_positions(self) -> Iterator[tuple[str, nn.Module]]:
        """(name, block) of every block position in network order: encoder stages first, then decoder stages."""
        for part in ("encoder", "decoder"):
            for i, stage in enumerate(getattr(self, part).stages):
                for j, block in enumerate(stage.blocks):
                    yield f"{part}.stages.{i}.blocks.{j}", block

    def block_positions(self) -> list[nn.Module]:
        """The blocks in network order, the order of an architecture's and a slicing's entries."""
        return [block for _, block in self.named_block_positions()]

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """(B, input_channels, *spatial) -> (B, num_classes, *spatial), any spatial size.

        Under deep supervision a list of logits, highest resolution first, at `output_scales`.
        """
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
        kept = [max(1, round(size * s)) for size, s in zip(sizes, scale, strict=True)]
        return output[tuple([slice(None), slice(None), *(slice(k) for k in kept)])]


def check_settings(
    n_stages: int,
    features: Sequence[int],
    strides: Sequence[tuple[int, ...]],
    n_blocks_encoder: Sequence[int],
    n_blocks_decoder: Sequence[int],
    extras: Extras = PAPER,
) -> None:
    """Raises ValueError naming the first setting that does not fit the others."""
    lengths = {
        "features_per_stage": len(features),
        "strides": len(strides),
        "n_blocks_per_stage": len(n_blocks_encoder),
        "n_blocks_per_stage_decoder": len(n_blocks_decoder),
    }
    for name, length in lengths.items():
        if length != n_stages or n_stages < 1:
            raise ValueError(f"{name} has {length} entries, but n_stages is {n_stages}: give one entry per stage")
    n_dims = {len(s) for s in strides}
    if len(n_dims) != 1 or not n_dims <= {2, 3}:
        raise ValueError(f"strides {list(strides)} must have 2 or 3 entries per stage, the same number in each")
    if any(s < 1 for stride in strides for s in stride):
        raise ValueError(f"strides {list(strides)} must all be at least 1")
    if any(n < 1 for n in [*n_blocks_encoder, *n_blocks_decoder]):
        raise ValueError(f"blocks per stage {list(n_blocks_encoder)}, {list(n_blocks_decoder)} must be at least 1")
    extras.check(strides)
    if features[0] % 4 and not extras.stem_features:
        raise ValueError(f"features_per_stage[0] is {features[0]}; the final mapping needs a multiple of 4")
    if any(b < a for a, b in pairwise(features)):
        raise ValueError(f"features_per_stage {list(features)} must not shrink with depth")
