"""Candidate slicings of a block, and the notation for what a network's blocks choose among them.

A thickness is one number of tokens per spatial axis. An architecture is one candidate index per block, in network
order: encoder stages first, then decoder stages. In 2D the default indices 0..3 mean (2, 2), (2, 4), (4, 2), (4, 4).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

Architecture: TypeAlias = tuple[int, ...]
Slicing: TypeAlias = tuple[tuple[int, ...], ...]

# entry of a supernet checkpoint's init_args
CHECKPOINT_KEY = "slicing_candidates"
MAX_THICKNESS = 255  # a network keeps its slicing in a uint8 buffer


def default_candidates(n_dims: int) -> Slicing:
    """The general candidate set {2, 4}^n of Fan et al. 2025, one thickness per candidate index."""
    return tuple(product((2, 4), repeat=n_dims))


def check_thickness(thickness: Sequence[Any], n_dims: int, what: str = "") -> tuple[int, ...]:
    """`thickness` as a tuple of `n_dims` whole numbers from 1 to 255.

    NumPy's and PyTorch's whole numbers become Python's; floats and truth values are refused. what: names the thickness
    in messages, such as "block 3". Raises ValueError naming the value, the rule and the remedy.
    """
    if not isinstance(thickness, Iterable):
        example = (thickness,) * n_dims
        raise ValueError(f"thickness {thickness!r} is one number: give one per spatial axis, such as {example}")
    shown = f"thickness {tuple(thickness)}{what and f' of {what}'}"
    if len(thickness) != n_dims:
        raise ValueError(f"{shown} has {len(thickness)} entries for {n_dims} spatial axes; give one thickness per axis")
    if not all(_is_thickness(value) for value in thickness):
        raise ValueError(
            f"{shown} is out of range: every entry must be a whole number from 1 to {MAX_THICKNESS}, 2 and 4 are usual"
        )
    return tuple(operator.index(value) for value in thickness)


def check_slicing(slicing: Sequence[Sequence[Any]], what: str = "block") -> Slicing:
    """`slicing` as a tuple of thicknesses that all have the same number of axes, 2 or 3.

    what: each entry is one of, for messages. Raises ValueError naming the value and the rule.
    """
    if not slicing:
        raise ValueError(f"a slicing needs at least one {what}")
    n_dims = len(slicing[0])
    if n_dims not in (2, 3):
        raise ValueError(
            f"thickness {tuple(slicing[0])} of {what} 0 must have one number per axis, 2 in 2D and 3 in 3D"
        )
    return tuple(check_thickness(thickness, n_dims, f"{what} {i}") for i, thickness in enumerate(slicing))


def check_candidates(candidates: Sequence[Sequence[Any]], n_dims: int) -> Slicing:
    """`candidates` as a tuple of 1 to 256 different thicknesses of `n_dims` axes; ValueError naming what does not fit.

    256, because a supernet keeps its path in a uint8 buffer.
    """
    checked = tuple(check_thickness(thickness, n_dims, f"candidate {i}") for i, thickness in enumerate(candidates))
    if not 1 <= len(checked) <= 256 or len(set(checked)) != len(checked):
        raise ValueError(f"candidates {checked} must be 1 to 256 different slicings: drop what is named twice")
    return checked


def check_trained_candidates(init_args: Mapping[str, Any], present: Slicing, fold_folder: Path) -> None:
    """Raises ValueError, naming both, unless a supernet has the candidates that it was trained with.

    init_args: of its checkpoint; those of older versions do not say. present: candidates of the plans. Weights of other
    candidates would fit if there are as many.
    """
    recorded = init_args.get(CHECKPOINT_KEY)
    if recorded is None or tuple(map(tuple, recorded)) == present:
        return
    then, now = (", ".join(map(thickness_text, candidates)) for candidates in (recorded, present))
    raise ValueError(
        f"the supernet in {fold_folder} was trained with the candidates {then}, the plans have {now} now; restore the "
        f"entry 'candidates' of the plans, or move {fold_folder} away to train the supernet anew"
    )


def _is_thickness(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and 1 <= operator.index(value) <= MAX_THICKNESS
    except TypeError:
        return False


def thickness_text(thickness: Sequence[int]) -> str:
    """A thickness as commands take it: 2x4, in 3D 2x4x2."""
    return "x".join(map(str, thickness))
