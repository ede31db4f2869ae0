"""How does a supernet run block by block, so that it can go on from where another path left off?"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from nnunetv2_slicemamba.nets import SliceMambaSupernet
from nnunetv2_slicemamba.nets.decoder import Decoder
from nnunetv2_slicemamba.nets.encoder import Encoder
from nnunetv2_slicemamba.nets.s3block import CandidateBlock

from .prefix_cache import Features


class BlockwiseSupernet:
    """The same operations in the same order as the supernet's own forward pass, without deep supervision.

    Images are padded to the network's total stride beforehand.
    """

    def __init__(self, network: SliceMambaSupernet) -> None:
        self.network = network
        self._blocks: list[CandidateBlock] = []
        # block -> the stage that begins with it: its resampling, and for decoder stages which encoder input is added
        self._entries: dict[int, tuple[nn.Module, bool, int | None]] = {}
        for stage in _stages(network.encoder):
            self._entries[len(self._blocks)] = (stage.downsample, True, None)
            self._blocks.extend(stage.blocks)
        self.n_encoder_blocks = len(self._blocks)
        upwards = _stages(network.decoder)
        for j, stage in enumerate(upwards):
            self._entries[len(self._blocks)] = (stage.upsample, False, len(upwards) - j if j else None)
            self._blocks.extend(stage.blocks)

    def begin(self, data: Tensor) -> Features:
        """(B, channels, *spatial) images to the features before the first block."""
        return Features(self.network.encoder.patch_embedding(data))

    def block(self, number: int, candidate: int, features: Features) -> Features:
        """The features behind block `number`, in network order from 0, with one of its candidates."""
        x, inputs = features.x, features.inputs
        if number in self._entries:
            resample, is_encoder, added = self._entries[number]
            x = resample(x if added is None else x + inputs[added])
            if is_encoder:
                inputs = (*inputs, x)
        block = self._blocks[number]
        block.choose(candidate)
        return Features(block(x), inputs)

    def finish(self, features: Features) -> Tensor:
        """The features behind the last block to logits, (B, heads, *spatial)."""
        decoder = self.network.decoder
        return decoder.final_mapping(features.x, decoder.seg_layers[-1])


def _stages(part: Encoder | Decoder) -> list[Any]:
    return list(part.stages)
