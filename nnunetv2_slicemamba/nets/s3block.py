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
from nnunetv2_slicemamba.slicing.candidates import (
    NO_BLOCK,
    NO_SCAN,
    Candidate,
    candidate_of_reading,
    check_candidate,
    reading_of,
)


class S3Block(nn.Module):
    """S3 block: x + DropPath(BSS(LayerNorm(x))); after Fan et al. 2025. No MLP.

    Arguments as in BSS, but thickness may be any candidate: also "4@h", "no-scan", or "no-block", which makes the block
    the identity. All weights are there whatever the candidate, which may be changed at any time. drop_path: probability
    that a sample skips the block in training. checkpointed: keep only the input for the backward pass and compute the
    block again there, which costs a forward pass and saves its memory. Input and output: (B, *spatial, dim), channels
    last.
    """

    def __init__(
        self,
        dim: int,
        n_dims: int = 2,
        thickness: Candidate = (2, 2),
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
        self.bss = BSS(dim, n_dims, (2,) * n_dims, d_state, expand, scan, normalise_scan, starts_at_zero)
        self.skipped = False
        self.set_candidate(thickness)
        self.drop_path = DropPath(drop_path)
        self.graphs: BlockGraphs | None = None  # see training_graphs

    @classmethod
    def from_settings(cls, settings: SharedSettings, dim: int, candidate: Candidate, drop_path: float) -> S3Block:
        """A block of a network with these settings."""
        return cls(dim, thickness=candidate, drop_path=drop_path, **settings.block_options)

    @property
    def candidate(self) -> Candidate:
        """What the block does: a thickness, "no-scan" or "no-block"."""
        return NO_BLOCK if self.skipped else candidate_of_reading(self.bss.thickness) or NO_SCAN

    def set_candidate(self, candidate: Candidate) -> None:
        """Changes what the block does; raises ValueError if it does not fit the block's axes."""
        checked = check_candidate(candidate, self.bss.n_dims)
        self.skipped = checked == NO_BLOCK
        self.bss.thickness = reading_of(checked)

    def forward(self, x: Tensor) -> Tensor:
        if self.skipped:
            return x
        if self.checkpointed and self.training and torch.is_grad_enabled():
            return checkpoint(self._residual, x, use_reentrant=False)
        if self.graphs is not None and x.is_cuda and self.training and torch.is_grad_enabled():
            return self.graphs.run(self, self._residual, x, self.bss.inner // self.bss.dim, self.bss.thickness)
        return self._residual(x)

    def _residual(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.bss(self.norm(x)))


class CandidateBlock(nn.ModuleList):
    """One block position of the supernet: a block per candidate, one of which is used at a time.

    blocks: one per candidate, or an S3 block that serves all candidates, of which only what it does changes.
    `choose(index)` selects the candidate of the next forward passes.
    """

    def __init__(self, blocks: Sequence[nn.Module], candidates: Sequence[Candidate]) -> None:
        super().__init__(blocks)
        self.candidates = tuple(candidates)
        self.share_weights = len(blocks) < len(candidates)
        self.choice = 0

    def choose(self, index: int) -> None:
        """Selects candidate `index`, which the caller has checked to lie in range(len(candidates))."""
        self.choice = index
        if self.share_weights:
            block = self.chosen
            assert isinstance(block, S3Block)
            block.set_candidate(self.candidates[index])

    @property
    def chosen(self) -> nn.Module:
        """The block of the next forward passes: an S3 block, or the identity of "no-block"."""
        return self[0 if self.share_weights else self.choice]

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.chosen(x)
        return result
