"""SliceMambaUNet: the paper's network and hybrids of it, with one slicing per block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunetv2_slicemamba.nets.settings import NetworkSettings
from nnunetv2_slicemamba.nets.sliced import SlicedNetwork


class SliceMambaUNet(SlicedNetwork):
    """U-shaped network of S3 blocks; after Fan et al. 2025, with the general shape taken from nnU-Net's plans.

    slicing: candidate per block in network order, default thickness 2 everywhere. The other arguments, and the options
    by name: see NetworkSettings. (B, input_channels, *spatial) -> (B, num_classes, *spatial) for any spatial size. The
    slicing is the uint8 buffer `slicing` (blocks, n): it travels with the weights, so that every fold's checkpoint
    brings its own. Raises ValueError for settings that contradict each other.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        n_stages: int,
        features_per_stage: Sequence[int],
        strides: Sequence[Sequence[int]],
        n_blocks_per_stage: Sequence[int],
        n_blocks_per_stage_decoder: Sequence[int],
        d_state: int = 16,
        expand: int = 2,
        drop_path_rate: float = 0.2,
        slicing: Sequence[Sequence[int] | str] | None = None,
        deep_supervision: bool = False,
        **options: Any,
    ) -> None:
        shape = (input_channels, num_classes, n_stages, features_per_stage, strides)
        blocks = (n_blocks_per_stage, n_blocks_per_stage_decoder, d_state, expand, drop_path_rate)
        settings = NetworkSettings.from_arguments(*shape, *blocks, deep_supervision, **options)
        super().__init__(settings, slicing)
