"""Base of the networks that are trained and predict: one S3 block per position, each with its slicing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.nets.base import SliceMambaBase
from nnunetv2_slicemamba.nets.network_graphs import NetworkGraphs
from nnunetv2_slicemamba.nets.s3block import S3Block
from nnunetv2_slicemamba.nets.settings import SharedSettings
from nnunetv2_slicemamba.slicing.candidates import (
    Candidate,
    Slicing,
    candidate_of_row,
    check_candidate,
    row_of,
)


class SlicedNetwork(SliceMambaBase):
    """A network with one S3 block per position and one candidate for each: its thickness, "no-scan" or "no-block".

    settings: which network. slicing: candidate per block in network order, default thickness 2 everywhere. The slicing
    is the uint8 buffer `slicing` (blocks, n), whose rows are `row_of` the candidates: it travels with the weights, so
    that every fold's checkpoint brings its own. All blocks have all weights.
    """

    def __init__(self, settings: SharedSettings, slicing: Sequence[Sequence[int] | str] | None = None) -> None:
        thickness = (2,) * settings.n_dims
        super().__init__(settings, lambda dim, drop_path: S3Block.from_settings(settings, dim, thickness, drop_path))
        self.graphs = NetworkGraphs()
        self.slicing: Tensor
        self.register_buffer("slicing", torch.full((self.n_blocks, self.n_dims), 2, dtype=torch.uint8))
        # nnU-Net's predictor swaps folds by load_state_dict on one network: the slicing must follow the weights,
        # as plain ints, so that the forward pass never waits for a GPU to read the buffer
        self.register_load_state_dict_post_hook(_follow_buffer)
        if slicing is not None:
            self.set_slicing(slicing)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits (B, num_classes, *spatial) of images (B, input_channels, *spatial), or a list under deep supervision.

        Any spatial size. The list has the highest resolution first. On a GPU a CUDA graph gives them where one can be
        used. Raises ValueError for what is no tensor, and for images of another shape, without a pixel or of a
        whole-number type.
        """
        plain = super().forward
        if not isinstance(x, Tensor) or not x.is_cuda or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return plain(x)
        return self.graphs.run(self, plain, x, self._graph_state())

    def record_training(self, x: Tensor) -> None:
        """Records the training pass of a batch like x as a CUDA graph, under the present autocast."""
        self.graphs.record_training(self, super().forward, x, self._graph_state())

    def _graph_state(self) -> tuple[Any, ...]:
        return self.get_slicing(), self.decoder.deep_supervision

    def set_slicing(self, slicing: Sequence[Sequence[int] | str]) -> None:
        """Sets what every block does, in network order: n ints in 1..255, "no-scan" or "no-block" for each.

        Raises ValueError naming both numbers if the entries do not fit this network.
        """
        if not isinstance(slicing, Iterable):
            raise ValueError(
                f"slicing is {slicing!r}, it must have a candidate per block: give {self.n_blocks} of them"
            )
        values = [check_candidate(candidate, self.n_dims) for candidate in slicing]
        if len(values) != self.n_blocks:
            raise ValueError(
                f"the slicing has {count(len(values), 'block')}, this network has {self.n_blocks}; "
                f"it was made for another network or other plans"
            )
        rows = [row_of(candidate, self.n_dims) for candidate in values]
        self.slicing.copy_(torch.tensor(rows, dtype=torch.uint8).view_as(self.slicing))
        self._apply_slicing(values)

    def get_slicing(self) -> Slicing:
        """What every block does, in network order, as the forward pass uses it."""
        return tuple(block.candidate for block in self.block_positions())  # type: ignore[misc]

    def _apply_slicing(self, values: Sequence[Candidate]) -> None:
        for block, candidate in zip(self.block_positions(), values, strict=True):
            assert isinstance(block, S3Block)
            block.set_candidate(candidate)


def _follow_buffer(network: Any, incompatible_keys: Any) -> None:
    network._apply_slicing([candidate_of_row(row) for row in network.slicing.tolist()])
