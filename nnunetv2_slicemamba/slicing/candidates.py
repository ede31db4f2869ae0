"""Candidates of a block, what it does, and the notation for what a network's blocks choose among them.

A candidate is a thickness, one number of tokens per spatial axis; "4@h", bands of 4 tokens that are read along axis h
alone; "no-scan" or "no-block". It is the same plain value in plans, checkpoints and slicing files (there as JSON), in
code, and in a network's buffer (as a row of numbers).
An architecture is one candidate index per block, in network order: encoder stages first, then decoder stages. In 2D the
default indices 0..3 mean (2, 2), (2, 4), (4, 2), (4, 4).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, TypeAlias

Thickness: TypeAlias = tuple[int, ...]
Candidate: TypeAlias = Thickness | str
Architecture: TypeAlias = tuple[int, ...]
Slicing: TypeAlias = tuple[Candidate, ...]

# the block keeps projections, convolution and gate, with the scans' skip term in place of the scans
NO_SCAN = "no-scan"
# the block is the identity
NO_BLOCK = "no-block"
NAMED = (NO_SCAN, NO_BLOCK)
# a network keeps its slicing in a uint8 buffer, in which a row of a named candidate is 0, .., 0, code, and a row of one
# axis has its only 0 there; in 2D along h, where that is 0, code as well, the thickness comes behind the codes
MAX_THICKNESS = 255
# names of the axes, of which the last two or three are an image's
AXES = "dhw"
_ONE_AXIS = re.compile(r"([0-9]{1,3})(?:x([0-9]{1,3}))?@([dhw])")
_CODES = {NO_SCAN: 1, NO_BLOCK: 2}


def default_candidates(n_dims: int) -> tuple[Thickness, ...]:
    """The general candidate set {2, 4}^n of Fan et al. 2025, one thickness per candidate index."""
    return tuple(product((2, 4), repeat=n_dims))


def wide_candidates(n_dims: int) -> Slicing:
    """The paper's candidates, thickness 1 (a plain raster) and 8 on all axes, no scan and no block."""
    return (*default_candidates(n_dims), (1,) * n_dims, (8,) * n_dims, *NAMED)


def check_thickness(thickness: Sequence[Any], n_dims: int, what: str = "") -> Thickness:
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


def check_candidate(candidate: Sequence[Any] | str, n_dims: int, what: str = "") -> Candidate:
    """`candidate` as a name of NAMED or a checked thickness; arguments and errors as those of check_thickness."""
    if not isinstance(candidate, str):
        return check_thickness(candidate, n_dims, what)
    if candidate in NAMED:
        return candidate
    reading = one_axis(candidate)
    if reading is None:
        raise ValueError(
            f"candidate {candidate!r}{what and f' of {what}'} does not exist: give a thickness per axis, "
            f"{' or '.join(NAMED)}, or bands along one axis such as {'4@h' if n_dims == 2 else '2x4@d'}"
        )
    most = MAX_THICKNESS - len(_CODES) if n_dims == 2 else MAX_THICKNESS
    if len(reading) != n_dims or reading.count(0) != 1 or max(reading) > most:
        raise ValueError(
            f"candidate {candidate!r}{what and f' of {what}'} must have a thickness from 1 to {most} for each of the "
            f"{n_dims - 1} axes that bands do not follow, and one of the axes {', '.join(AXES[-n_dims:])}"
        )
    return candidate_of_reading(reading)


def one_axis(candidate: str) -> Thickness | None:
    """Thickness per axis of "4@h" or "2x4@d", 0 at the axis along which bands are read; None for other texts."""
    found = _ONE_AXIS.fullmatch(candidate)
    if found is None:
        return None
    numbers = [int(number) for number in found.groups()[:-1] if number is not None]
    axes = AXES[-len(numbers) - 1 :]
    if found[3] not in axes:
        return None
    numbers.insert(axes.index(found[3]), 0)
    return tuple(numbers)


def reading_of(candidate: Candidate) -> Thickness:
    """Thickness per axis that a block scans with, 0 at an axis along which alone it reads; () without scans."""
    if not isinstance(candidate, str):
        return candidate
    return () if candidate in NAMED else one_axis(candidate) or ()


def candidate_of_reading(reading: Thickness) -> Candidate:
    """The inverse of reading_of, where blocks have scans."""
    if 0 not in reading:
        return reading
    axis = AXES[reading.index(0) - len(reading)]
    return f"{'x'.join(str(number) for number in reading if number)}@{axis}"


def check_slicing(slicing: Sequence[Sequence[Any] | str], what: str = "block") -> Slicing:
    """`slicing` as a tuple of candidates whose thicknesses all have the same number of axes, 2 or 3.

    what: each entry is one of, for messages. Raises ValueError naming the value and the rule.
    """
    if not slicing:
        raise ValueError(f"a slicing needs at least one {what}")
    first = next((i for i, one in enumerate(slicing) if not isinstance(one, str)), None)
    n_dims = (axes_of(map(candidate_from_json, slicing)) or 2) if first is None else len(slicing[first])
    if first is not None and n_dims not in (2, 3):
        raise ValueError(
            f"thickness {tuple(slicing[first])} of {what} {first} must have one number per axis, 2 in 2D and 3 in 3D"
        )
    return tuple(check_candidate(one, n_dims, f"{what} {i}") for i, one in enumerate(slicing))


def check_candidates(candidates: Sequence[Sequence[Any] | str], n_dims: int) -> Slicing:
    """`candidates` as a tuple of 1 to 256 different ones of `n_dims` axes; ValueError naming what does not fit.

    256, because a supernet keeps its path in a uint8 buffer.
    """
    checked = tuple(check_candidate(one, n_dims, f"candidate {i}") for i, one in enumerate(candidates))
    if not 1 <= len(checked) <= 256 or len(set(checked)) != len(checked):
        raise ValueError(f"candidates {checked} must be 1 to 256 different slicings: drop what is named twice")
    return checked


def candidate_from_json(value: Sequence[int] | str) -> Candidate:
    """The candidate that a JSON value stands for: a list is a thickness."""
    return value if isinstance(value, str) else tuple(value)


def row_of(candidate: Candidate, n_dims: int) -> Thickness:
    """The candidate as a row of a network's buffer: `n_dims` numbers from 0 to 255."""
    if candidate in NAMED:
        return (*(0,) * (n_dims - 1), _CODES[str(candidate)])
    row = reading_of(candidate)
    return (0, row[1] + len(_CODES)) if n_dims == 2 and row[0] == 0 else row


def candidate_of_row(row: Sequence[int]) -> Candidate:
    """The candidate of a row of a network's buffer; ValueError if it is none."""
    for name, code in _CODES.items():
        if not any(row[:-1]) and row[-1] == code:
            return name
    if list(row).count(0) == 1:
        reading = (0, row[1] - len(_CODES)) if len(row) == 2 and row[0] == 0 else tuple(row)
        return check_candidate(candidate_of_reading(reading), len(row))
    return check_thickness(row, len(row))


def axes_of(slicing: Iterable[Candidate]) -> int | None:
    """Number of axes of the thicknesses in a slicing; None if it has none."""
    return next((len(reading) for reading in map(reading_of, slicing) if reading), None)


def candidate_text(candidate: Sequence[int] | str) -> str:
    """A candidate as commands take it: 2x4, in 3D 2x4x2, 4@h, no-scan or no-block."""
    return candidate if isinstance(candidate, str) else "x".join(map(str, candidate))


def in_order(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Different candidates: thicknesses by their numbers, then those of one axis, then the named ones."""
    distinct = set(candidates)
    thicknesses = sorted(one for one in distinct if not isinstance(one, str))
    along_one = sorted(one for one in distinct if isinstance(one, str) and one not in NAMED)
    return [*thicknesses, *along_one, *(name for name in NAMED if name in distinct)]


def listed(candidates: Iterable[Sequence[int] | str]) -> str:
    """Candidates for people to read: 2x2, 2x4, no-scan."""
    return ", ".join(map(candidate_text, candidates))


def _is_thickness(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and 1 <= operator.index(value) <= MAX_THICKNESS
    except TypeError:
        return False
