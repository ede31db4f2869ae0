"""SliceMambaSupernet: every block position holds one block per candidate slicing, an architecture picks one each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nnunetv2_slicemamba.nets.base import SliceMambaBase
from nnunetv2_slicemamba.nets.s3block import CandidateBlock, S3Block
from nnunetv2_slicemamba.nets.settings import NetworkSettings
from nnunetv2_slicemamba.nets.unet import SliceMambaUNet
from nnunetv2_slicemamba.slicing.candidates import Architecture, Slicing, default_candidates


class SliceMambaSupernet(SliceMambaBase):
    """The supernet of the slicing search; after Fan et al. 2025 and single-path one-shot search (Guo et al. 2020).

    candidates: thickness per candidate, default {2, 4}^n. share_weights: one set of weights per position, used by all
    candidates. The other arguments, and the options by name: see NetworkSettings. Only the current path, one candidate
    per position, takes part in a forward pass. The path is the uint8 buffer `architecture` (blocks,), index 0
    everywhere at first. Raises ValueError for settings that contradict each other.
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
        candidates: Sequence[Sequence[int]] | None = None,
        share_weights: bool = False,
        deep_supervision: bool = False,
        **options: Any,
    ) -> None:
        shape = (input_channels, num_classes, n_stages, features_per_stage, strides)
        blocks = (n_blocks_per_stage, n_blocks_per_stage_decoder, d_state, expand, drop_path_rate)
        settings = NetworkSettings.from_arguments(*shape, *blocks, deep_supervision, candidates=candidates, **options)
        slicings = settings.candidates or default_candidates(settings.n_dims)

        def block(dim: int, drop_path: float) -> CandidateBlock:
            built = slicings[:1] if share_weights else slicings
            own = [S3Block.from_settings(settings, dim, thickness, drop_path) for thickness in built]
            return CandidateBlock(own, slicings)

        super().__init__(settings, block)
        self.candidates = slicings
        self.share_weights = share_weights
        self.architecture: Tensor
        self.register_buffer("architecture", torch.zeros(self.n_blocks, dtype=torch.uint8))
        self.register_load_state_dict_post_hook(_follow_buffer)

    def check_architecture(self, indices: Sequence[int]) -> Architecture:
        """One candidate index per block, `indices` as a tuple; ValueError naming the numbers that do not fit."""
        values = tuple(int(i) for i in indices)
        if len(values) != self.n_blocks:
            raise ValueError(
                f"the architecture has {len(values)} indices, this network has {self.n_blocks} blocks; "
                "it was made for another network or other plans"
            )
        if any(not 0 <= i < len(self.candidates) for i in values):
            raise ValueError(
                f"architecture {values} has an index outside 0..{len(self.candidates) - 1}, "
                f"the range of the {len(self.candidates)} candidates; was it searched with other candidates?"
            )
        return values

    def set_architecture(self, indices: Sequence[int]) -> None:
        """Makes `indices` (one candidate index per block, network order) the path, and stores it in the buffer."""
        values = self.check_architecture(indices)
        self.architecture.copy_(torch.tensor(values, dtype=torch.uint8))
        self._choose(values)

    def sample_architecture(self, generator: torch.Generator | None = None) -> Architecture:
        """Draws a path uniformly, uses it in the next forward passes and returns its indices.

        The buffer keeps its value, which is the path of validation.
        """
        drawn = torch.randint(len(self.candidates), (self.n_blocks,), generator=generator)
        values = tuple(drawn.tolist())
        self._choose(values)
        return values

    def restore_architecture(self) -> None:
        """Goes back from a drawn path to the one that the buffer holds."""
        self._choose(self.check_architecture(self.architecture.tolist()))

    def get_architecture(self) -> Architecture:
        """The path that the forward pass uses now."""
        return tuple(block.choice for block in self.block_positions())  # type: ignore[misc]

    def slicing_of(self, indices: Sequence[int]) -> Slicing:
        """Thickness per block of an architecture."""
        return tuple(self.candidates[i] for i in self.check_architecture(indices))

    def extract(self, indices: Sequence[int]) -> SliceMambaUNet:
        """The path `indices` as a network of its own, with a copy of its weights and its slicing set.

        On the supernet's device, in its training mode and with its present deep supervision switch.
        """
        values = self.check_architecture(indices)
        network = SliceMambaUNet(**self.settings.as_arguments(), slicing=self.slicing_of(values))
        chosen = {
            name: f"{name}.{0 if self.share_weights else index}"
            for (name, _), index in zip(self.named_block_positions(), values, strict=True)
        }
        source = self.state_dict()
        weights = {}
        for key in network.state_dict():
            if key == "slicing":
                weights[key] = network.slicing
                continue
            # "encoder.stages.0.blocks.1.norm.weight": the first five parts name a block position
            position = ".".join(key.split(".")[:5])
            weights[key] = source[key.replace(position, chosen[position], 1) if position in chosen else key]
        network.load_state_dict(weights)
        network.decoder.deep_supervision = self.decoder.deep_supervision
        return network.to(self.architecture.device).train(self.training)

    def _choose(self, values: Sequence[int]) -> None:
        for block, index in zip(self.block_positions(), values, strict=True):
            assert isinstance(block, CandidateBlock)
            block.choose(index)


def _follow_buffer(network: Any, incompatible_keys: Any) -> None:
    network.restore_architecture()
