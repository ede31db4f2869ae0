"""Candidate sets: those that a user names for plans, and whether two are the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.slicing.candidates import (
    AXES,
    NAMED,
    Candidate,
    Slicing,
    axes_of,
    candidate_from_json,
    candidate_text,
    check_candidate,
    check_candidates,
    check_thickness,
    listed,
    wide_candidates,
)

PAPER, WIDE = "paper", "wide"
# entry of a supernet checkpoint's init_args
CHECKPOINT_KEY = "slicing_candidates"


def named_candidates(text: str, n_dims: int) -> Slicing | None:
    """The candidates of a network of `n_dims` axes that `--candidates TEXT` names; None for the default, the paper's.

    text: paper, wide, or a list such as 1,2x4,no-scan, in which a single number is the same thickness on all axes. A
    list with thicknesses of other numbers of axes is not meant for this network, which keeps the default. Raises
    ValueError naming the entry, the rule and the remedy.
    """
    if text == PAPER:
        return None
    if text == WIDE:
        return wide_candidates(n_dims)
    entries = [entry.strip() for entry in text.split(",")]
    axes = {number for entry in entries for number in [_axes_told(entry)] if number is not None}
    if len(axes) > 1 or not axes <= {2, 3}:
        raise ValueError(
            f"the candidates {text!r} have thicknesses of {' and '.join(map(str, sorted(axes)))} axes: give 2x4 in 2D, "
            "2x4x2 in 3D, or a single number for all axes"
        )
    # every entry is checked, also where the list is for other networks
    checked = check_candidates([_candidate(entry, next(iter(axes), n_dims)) for entry in entries], *(axes or {n_dims}))
    return checked if axes_of(checked) in (None, n_dims) else None


def name_of(candidates: Slicing) -> str:
    """The text that `named_candidates` reads as these candidates, which are not the paper's."""
    n_dims = axes_of(candidates)
    is_wide = n_dims is not None and candidates == wide_candidates(n_dims)
    return WIDE if is_wide else ",".join(map(candidate_text, candidates))


def check_named(text: str, configurations: Sequence[str] | None) -> None:
    """Raises ValueError unless candidates can be named so, and are for all of nnU-Net's `configurations`, if given."""
    for configuration in configurations or ("2d", "3d_fullres"):
        n_dims = 2 if configuration == "2d" else 3
        if named_candidates(text, n_dims) is None and text != PAPER and configurations:
            raise ValueError(
                f"the candidates {text!r} are for networks of {5 - n_dims} axes, {configuration} has {n_dims}: give "
                f"thicknesses such as {'x'.join('242'[:n_dims])}, or single numbers for all axes"
            )


def names_one_axis(text: str) -> bool:
    """True for a text such as 4@h or 2x4@d, whether or not a network has these axes."""
    thickness, _, axis = text.partition("@")
    return _is_thickness(thickness) and axis in tuple(AXES)


def along_one_axis(text: str, n_dims: int) -> Candidate:
    """The candidate of bands along one axis that "4@h" names, in 3D "2x4@d" too; one number is that of all other axes.

    Raises ValueError as check_candidate does.
    """
    thickness, _, axis = text.partition("@")
    several = "x".join([thickness] * (n_dims - 1)) if thickness.isdecimal() else thickness
    return check_candidate(f"{several}@{axis}", n_dims)


def _axes_told(entry: str) -> int | None:
    """Number of axes that an entry is for; None for one that is for any."""
    thickness, at, axis = entry.partition("@")
    if not _is_thickness(thickness) or (thickness.isdecimal() and axis != "d"):
        return None
    return 3 if axis == "d" else thickness.count("x") + 1 + bool(at)


def _candidate(entry: str, n_dims: int) -> Candidate:
    if entry in NAMED:
        return entry
    thickness, at, _ = entry.partition("@")
    if at and _is_thickness(thickness):
        return along_one_axis(entry, n_dims)
    if not _is_thickness(entry):
        raise ValueError(
            f"the candidate {entry!r} does not exist: give {PAPER}, {WIDE}, or a list of thicknesses (2 or 2x4), bands "
            f"along one axis (4@h), {' and '.join(NAMED)}, for example 1,2x4,8,no-scan"
        )
    numbers = tuple(map(int, entry.split("x")))
    return check_thickness(numbers * n_dims if len(numbers) == 1 else numbers, n_dims, f"{entry!r}")


def _is_thickness(entry: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}(x[0-9]{1,9})*", entry) is not None


def check_trained_candidates(init_args: Mapping[str, Any], present: Slicing, fold_folder: Path) -> None:
    """Raises ValueError, naming both, unless a supernet has the candidates that it was trained with.

    init_args: of its checkpoint; those of older versions do not say. present: candidates of the plans. Weights of other
    candidates would fit if there are as many.
    """
    recorded = init_args.get(CHECKPOINT_KEY)
    if recorded is None or are_same(recorded, present):
        return
    raise ValueError(
        f"the supernet in {fold_folder} was trained with the candidates {listed(recorded)}, the plans have "
        f"{listed(present)} now; restore the entry 'candidates' of the plans, or move {fold_folder} away to train the "
        "supernet anew"
    )


def are_same(one: Sequence[Sequence[int] | str], other: Sequence[Sequence[int] | str]) -> bool:
    """True for the same candidates in the same order, as JSON has them or as code does."""
    return tuple(map(candidate_from_json, one)) == tuple(map(candidate_from_json, other))
