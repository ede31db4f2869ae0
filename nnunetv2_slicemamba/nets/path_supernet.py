"""Base of the supernets: one block per candidate at every position, of which an architecture picks one each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_slicemamba.nets.base import SliceMambaBase
from nnunetv2_slicemamba.nets.s3block import CandidateBlock, S3Block
from nnunetv2_slicemamba.nets.settings import SharedSettings
from nnunetv2_slicemamba.nets.sliced import SlicedNetwork
from nnunetv2_slicemamba.slicing.candidates import NO_BLOCK, Architecture, Candidate, Slicing, default_candidates


class Supernet(SliceMambaBase):
    """A network with one block per candidate at every position, or one S3 block for all of them.

    settings: which network, and its candidates, {2, 4}^n if they are None.

    Only the current path, one candidate per position, takes part in a forward pass. The path is the uint8 buffer
    `architecture` (blocks,), index 0 everywhere at first. Raises ValueError for a network without blocks.
    """

    def __init__(self, settings: SharedSettings, share_weights: bool) -> None:
        slicings = settings.candidates or default_candidates(settings.n_dims)

        def block(dim: int, drop_path: float) -> CandidateBlock:
            def made(candidate: Candidate) -> S3Block:
                return S3Block.from_settings(settings, dim, candidate, drop_path)

            if share_weights:
                return CandidateBlock([made(slicings[0])], slicings)
            return CandidateBlock([nn.Identity() if one == NO_BLOCK else made(one) for one in slicings], slicings)

        super().__init__(settings, block)
        if self.n_blocks == 0:
            raise ValueError(
                "the network has no S3 blocks, so there is no slicing to search: plan it with some "
                "(--blocks-from-stride), or train it without a supernet"
            )
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

    def sample_architecture(self, generator: torch.Generator | None = None, path_dropout: bool = True) -> Architecture:
        """Draws a path, uses it in the next forward passes and returns its indices.

        Every block's candidate is drawn uniformly. With path_dropout, which matters only if "no-block" is a candidate,
        a share from 0 to 1 is drawn first, and every block is left out with that probability. All numbers of blocks are
        then equally likely, so that short and long paths are trained alike; drawn uniformly, nearly all paths would be
        long. The buffer keeps its value, which is the path of validation.
        """
        n, blocks = len(self.candidates), (self.n_blocks,)
        if path_dropout and NO_BLOCK in self.candidates and n > 1:
            left_out = self.candidates.index(NO_BLOCK)
            others = torch.tensor([i for i in range(n) if i != left_out])
            share = torch.rand(1, generator=generator)
            skipped = torch.rand(blocks, generator=generator) < share
            kept = others[torch.randint(n - 1, blocks, generator=generator)]
            drawn = torch.where(skipped, left_out, kept)
        else:
            drawn = torch.randint(n, blocks, generator=generator)
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
        """What every block of an architecture does."""
        return tuple(self.candidates[i] for i in self.check_architecture(indices))

    def network_of(self, slicing: Slicing) -> SlicedNetwork:
        """A network of one path with these settings and that slicing."""
        raise NotImplementedError

    def extract(self, indices: Sequence[int]) -> SlicedNetwork:
        """The path `indices` as a network of its own, with a copy of its weights and its slicing set.

        Blocks that are "no-block" have the weights that they are initialised with. On the supernet's device, in its
        training mode and with its present deep supervision switch.
        """
        values = self.check_architecture(indices)
        network = self.network_of(self.slicing_of(values))
        chosen = {
            name: f"{name}.{0 if self.share_weights else index}"
            for (name, _), index in zip(self.named_block_positions(), values, strict=True)
        }
        source = self.state_dict()
        weights = {}
        for key, own in network.state_dict().items():
            # "encoder.stages.0.blocks.1.norm.weight": the first five parts name a block position
            position = ".".join(key.split(".")[:5])
            name = key.replace(position, chosen[position], 1) if position in chosen else key
            weights[key] = own if key == "slicing" or (position in chosen and name not in source) else source[name]
        network.load_state_dict(weights)
        network.decoder.deep_supervision = self.decoder.deep_supervision
        return network.to(self.architecture.device).train(self.training)

    def _choose(self, values: Sequence[int]) -> None:
        for block, index in zip(self.block_positions(), values, strict=True):
            assert isinstance(block, CandidateBlock)
            block.choose(index)


def _follow_buffer(network: Any, incompatible_keys: Any) -> None:
    network.restore_architecture()
