"""Fixed slicing: the thickness that all blocks get where nobody has chosen a slicing."""

from __future__ import annotations

from nnunetv2_slicemamba.common.counts import all_of
from nnunetv2_slicemamba.slicing.candidates import Slicing, candidate_text

FIXED_THICKNESS = {2: (2, 4), 3: (2, 4, 2)}  # by spatial axes


def fixed_slicing(n_blocks: int, n_dims: int) -> Slicing:
    """(blocks, axes) thicknesses in tokens, the same in every block."""
    return (FIXED_THICKNESS[n_dims],) * n_blocks


def fixed_text(n_dims: int) -> str:
    """The fixed thickness as commands take it: 2x4, or 2x4x2 in 3D."""
    return candidate_text(FIXED_THICKNESS[n_dims])


def fixed_in_words(n_dims: int, n_blocks: int) -> str:
    """The fixed slicing of a network for people: 2x4 in all 7 blocks."""
    return f"{fixed_text(n_dims)} in {all_of(n_blocks, 'block')}"
