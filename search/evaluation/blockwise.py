"""A supernet's forward pass block by block, which can go on from where another path left off."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nnunetv2_slicemamba.nets import SliceMambaSupernet
from nnunetv2_slicemamba.nets.decoder import Decoder, DecoderStage
from nnunetv2_slicemamba.nets.encoder import Encoder, EncoderStage
from nnunetv2_slicemamba.nets.s3block import CandidateBlock
from nnunetv2_slicemamba.search.evaluation.prefix_cache import Features


class BlockwiseSupernet:
    """A supernet's own forward pass, operation by operation in the same order, without deep supervision.

    Images are padded to the network's total stride beforehand.
    """

    def __init__(self, network: SliceMambaSupernet) -> None:
        self.network = network
        self._blocks: list[CandidateBlock] = []
        # block -> the stage that begins with it, and for decoder stages which skip enters it, counted from the last
        self._entries: dict[int, tuple[EncoderStage | DecoderStage, int]] = {}
        for stage in _stages(network.encoder):
            self._entries[len(self._blocks)] = (stage, 0)
            self._blocks.extend(stage.blocks)
        self.n_encoder_blocks = len(self._blocks)
        for j, stage in enumerate(_stages(network.decoder)):
            self._entries[len(self._blocks)] = (stage, j)
            self._blocks.extend(stage.blocks)

    def begin(self, data: Tensor) -> Features:
        """(B, channels, *spatial) images to the features before the first block."""
        x, skips = self.network.encoder.embed(data)
        return Features(x, tuple(skips))

    def block(self, number: int, candidate: int, features: Features) -> Features:
        """The features behind block `number`, in network order from 0, with one of its candidates."""
        x, skips = features.x, features.skips
        if number in self._entries:
            stage, skip = self._entries[number]
            if isinstance(stage, EncoderStage):
                x = stage.downsample(x)
                skips = (*skips, x)
            else:
                x = stage.enter(x, skips[-skip] if skip else None)
        block = self._blocks[number]
        block.choose(candidate)
        return Features(block(x), skips)

    def finish(self, features: Features) -> Tensor:
        """The features behind the last block to logits, (B, heads, *spatial)."""
        return self.network.decoder.finish(features.x, features.skips)[0]


def _stages(part: Encoder | Decoder) -> list[Any]:
    return list(part.stages)
