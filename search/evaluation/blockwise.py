"""A supernet's forward pass block by block, which can go on from where another path left off."""

from __future__ import annotations

from torch import Tensor

from nnunetv2_slicemamba.nets import Supernet
from nnunetv2_slicemamba.nets.s3block import CandidateBlock
from nnunetv2_slicemamba.search.evaluation.prefix_cache import Features


class BlockwiseSupernet:
    """A supernet's own forward pass, operation by operation in the same order, without deep supervision.

    Images are padded to the network's total stride beforehand.
    """

    def __init__(self, network: Supernet) -> None:
        self.network = network
        self.n_encoder_blocks = network.n_encoder_blocks
        self._blocks = network.block_positions()
        self._begin, *self._enter, self._finish = network.steps()

    def begin(self, data: Tensor) -> Features:
        """(B, channels, *spatial) images to the features before the first block."""
        return Features(*self._begin(data, ()))

    def block(self, number: int, candidate: int, features: Features) -> Features:
        """The features behind block `number`, in network order from 0, with one of its candidates."""
        x, skips = features.x, features.skips
        if number:
            x, skips = self._enter[number - 1](x, skips)
        block = self._blocks[number]
        assert isinstance(block, CandidateBlock)
        block.choose(candidate)
        return Features(block(x), skips)

    def finish(self, features: Features) -> Tensor:
        """The features behind the last block to logits, (B, heads, *spatial)."""
        return self._finish(features.x, features.skips)[0]
