"""Base of the networks that are trained and predict: one S3 block per position, each with its slicing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from nnunetv2_slicemamba.nets.base import SliceMambaBase
from nnunetv2_slicemamba.nets.network_graphs import NetworkGraphs
from nnunetv2_slicemamba.nets.s3block import S3Block
from nnunetv2_slicemamba.nets.settings import SharedSettings
from nnunetv2_slicemamba.slicing.candidates import Slicing, check_thickness


class SlicedNetwork(SliceMambaBase):
    """A network with one S3 block per position and one slicing for each.

    settings: which network. slicing: thickness per block in network order, default 2 everywhere. The slicing is the
    uint8 buffer `slicing` (blocks, n): it travels with the weights, so that every fold's checkpoint brings its own.
    """

    def __init__(self, settings: SharedSettings, slicing: Sequence[Sequence[int]] | None = None) -> None:
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
        used. Raises ValueError for images of another shape or of a whole-number type.
        """
        plain = super().forward
        if not x.is_cuda or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return plain(x)
        return self.graphs.run(self, plain, x, self._graph_state())

    def record_training(self, x: Tensor) -> None:
        """Records the training pass of a batch like x as a CUDA graph, under the present autocast."""
        self.graphs.record_training(self, super().forward, x, self._graph_state())

    def _graph_state(self) -> tuple[Any, ...]:
        return self.get_slicing(), self.decoder.deep_supervision

    def set_slicing(self, slicing: Sequence[Sequence[int]]) -> None:
        """Sets the thickness of every block, given in network order as `blocks` entries of n ints in 1..255.

        Raises ValueError naming both numbers if the entries do not fit this network.
        """
        if not isinstance(slicing, Iterable):
            raise ValueError(
                f"slicing is {slicing!r}, it must have a thickness per block: give {self.n_blocks} of them"
            )
        values = [check_thickness(thickness, self.n_dims) for thickness in slicing]
        if len(values) != self.n_blocks:
            raise ValueError(
                f"the slicing has {len(values)} blocks, this network has {self.n_blocks}; "
                f"it was made for another network or other plans"
            )
        self.slicing.copy_(torch.tensor(values, dtype=torch.uint8).view_as(self.slicing))
        self._apply_slicing(values)

    def get_slicing(self) -> Slicing:
        """The thickness of every block in network order, as the forward pass uses it."""
        return tuple(block.bss.thickness for block in self.block_positions())  # type: ignore[union-attr, misc]

    def _apply_slicing(self, values: Sequence[tuple[int, ...]]) -> None:
        for block, thickness in zip(self.block_positions(), values, strict=True):
            assert isinstance(block, S3Block)
            block.set_thickness(thickness)


def _follow_buffer(network: Any, incompatible_keys: Any) -> None:
    network._apply_slicing([tuple(thickness) for thickness in network.slicing.tolist()])
