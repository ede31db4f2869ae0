"""SliceMambaSupernet: the supernet of the paper's network and of hybrids of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunetv2_slicemamba.nets.path_supernet import Supernet
from nnunetv2_slicemamba.nets.settings import NetworkSettings
from nnunetv2_slicemamba.nets.unet import SliceMambaUNet
from nnunetv2_slicemamba.slicing.candidates import Slicing


class SliceMambaSupernet(Supernet):
    """The supernet of the slicing search; after Fan et al. 2025 and single-path one-shot search (Guo et al. 2020).

    candidates: thicknesses, "no-scan" and "no-block", default {2, 4}^n. share_weights: one set of weights per position,
    used by all candidates. The other arguments, and the options by name: see NetworkSettings. Only the current path,
    one candidate per position, takes part in a forward pass. The path is the uint8 buffer `architecture` (blocks,),
    index 0 everywhere at first. Raises ValueError for settings that contradict each other.
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
        candidates: Sequence[Sequence[int] | str] | None = None,
        share_weights: bool = False,
        deep_supervision: bool = False,
        **options: Any,
    ) -> None:
        shape = (input_channels, num_classes, n_stages, features_per_stage, strides)
        blocks = (n_blocks_per_stage, n_blocks_per_stage_decoder, d_state, expand, drop_path_rate)
        settings = NetworkSettings.from_arguments(*shape, *blocks, deep_supervision, candidates=candidates, **options)
        super().__init__(settings, share_weights)

    def network_of(self, slicing: Slicing) -> SliceMambaUNet:
        return SliceMambaUNet(**self.settings.as_arguments(), slicing=slicing)
