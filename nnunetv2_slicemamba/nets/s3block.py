"""The S3 block: a residual BSS with pre-normalisation and stochastic depth, and its choice among candidates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from dynamic_network_architectures.building_blocks.regularization import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnunetv2_slicemamba.nets.bss import BSS
from nnunetv2_slicemamba.nets.network_graphs import BlockGraphs
from nnunetv2_slicemamba.nets.settings import SharedSettings
from nnunetv2_slicemamba.nets.token_norm import TokenNorm
from nnunetv2_slicemamba.slicing.candidates import check_thickness


class S3Block(nn.Module):
    """S3 block: x + DropPath(BSS(LayerNorm(x))); after Fan et al. 2025. No MLP.

    Arguments as in BSS; drop_path: probability that a sample skips the block in training. checkpointed: keep only the
    input for the backward pass and compute the block again there, which costs a forward pass and saves its memory.
    Input and output: (B, *spatial, dim), channels last.
    """

    def __init__(
        self,
        dim: int,
        n_dims: int = 2,
        thickness: tuple[int, ...] = (2, 2),
        d_state: int = 16,
        expand: int = 2,
        drop_path: float = 0.0,
        checkpointed: bool = False,
        scan: bool = True,
        normalise_scan: bool = False,
        starts_at_zero: bool = False,
    ) -> None:
        super().__init__()
        self.checkpointed = checkpointed
        self.norm = TokenNorm(dim, for_block=True)
        self.bss = BSS(dim, n_dims, thickness, d_state, expand, scan, normalise_scan, starts_at_zero)
        self.drop_path = DropPath(drop_path)
        self.graphs: BlockGraphs | None = None  # see training_graphs

    @classmethod
    def from_settings(cls, settings: SharedSettings, dim: int, thickness: tuple[int, ...], drop_path: float) -> S3Block:
        """A block of a network with these settings."""
        return cls(dim, thickness=thickness, drop_path=drop_path, **settings.block_options)

    def set_thickness(self, thickness: tuple[int, ...]) -> None:
        """Changes the slicing; raises ValueError if it does not fit the block's axes."""
        self.bss.thickness = check_thickness(thickness, self.bss.n_dims)

    def forward(self, x: Tensor) -> Tensor:
        if self.checkpointed and self.training and torch.is_grad_enabled():
            return checkpoint(self._residual, x, use_reentrant=False)
        if self.graphs is not None and x.is_cuda and self.training and torch.is_grad_enabled():
            return self.graphs.run(self, self._residual, x, self.bss.inner // self.bss.dim, self.bss.thickness)
        return self._residual(x)

    def _residual(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.bss(self.norm(x)))


class CandidateBlock(nn.ModuleList):
    """One block position of the supernet: an S3 block per candidate slicing, one of which is used at a time.

    blocks: one per candidate, or one that serves all candidates, of which only the slicing changes. candidates:
    thickness per candidate. `choose(index)` selects the candidate of the next forward passes.
    """

    def __init__(self, blocks: Sequence[S3Block], candidates: Sequence[tuple[int, ...]]) -> None:
        super().__init__(blocks)
        self.candidates = tuple(candidates)
        self.share_weights = len(blocks) < len(candidates)
        self.choice = 0

    def choose(self, index: int) -> None:
        """Selects candidate `index`, which the caller has checked to lie in range(len(candidates))."""
        self.choice = index
        if self.share_weights:
            self.chosen.set_thickness(self.candidates[index])

    @property
    def chosen(self) -> S3Block:
        block = self[0 if self.share_weights else self.choice]
        assert isinstance(block, S3Block)
        return block

    def forward(self, x: Tensor) -> Tensor:
        return self.chosen(x)
