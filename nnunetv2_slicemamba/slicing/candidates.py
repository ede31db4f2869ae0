"""Candidate slicings of a block, and the notation for what a network's blocks choose among them.

A thickness is one number of tokens per spatial axis. An architecture is one candidate index per block, in network
order: encoder stages first, then decoder stages. In 2D the default indices 0..3 mean (2, 2), (2, 4), (4, 2), (4, 4).
"""

from __future__ import annotations

from itertools import product
from typing import TypeAlias

Architecture: TypeAlias = tuple[int, ...]
Slicing: TypeAlias = tuple[tuple[int, ...], ...]


def default_candidates(n_dims: int) -> Slicing:
    """The general candidate set {2, 4}^n of Fan et al. 2025, one thickness per candidate index."""
    return tuple(product((2, 4), repeat=n_dims))
