"""Slicings of a run's folds before the first one trains: set, checked, and told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.hashing import sha256_of_file
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.pipeline.fold_steps import (
    RunSettings,
    check_final_slicing,
    chosen_file,
    has_finals,
    search_arguments,
)
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder, SupernetFolder
from nnunetv2_slicemamba.planning.selection import Selection
from nnunetv2_slicemamba.search.choosing.set_slicing import named_choice, set_slicing
from nnunetv2_slicemamba.search.choosing.write_choice import holds
from nnunetv2_slicemamba.slicing.file import read_slicing_file
from nnunetv2_slicemamba.slicing.fixed import fixed_in_words
from nnunetv2_slicemamba.slicing.trained import trained_slicing


def set_slicings(selections: Sequence[Selection], value: str, settings: RunSettings) -> None:
    """Sets the slicing of every fold to what `run --slicing VALUE` names; files that hold it stay as they are.

    Raises InputError, and writes nothing, if the finished training of a fold has another slicing; ValueError for a
    value that names no slicing.
    """
    supernets = [SupernetFolder(selection, settings.supernet_trainer) for selection in selections]
    choices = [named_choice(supernet, value) for supernet in supernets]
    for selection, choice in zip(selections, choices, strict=True):
        final = FoldFolder(selection, settings.trainer)
        if final.is_trained and trained_slicing(final.checkpoint) != choice.slicing:
            raise InputError(
                f"{final.checkpoint} was trained with another slicing than --slicing {value} names; leave --slicing "
                f"out, or move the folder {final.path} away to train fold {selection.fold} anew"
            )
    for supernet, choice in zip(supernets, choices, strict=True):
        file = supernet.selection.set_slicing_file
        if not (file.is_file() and holds(file, choice)):
            set_slicing(supernet, value)


def check_slicings(selections: Sequence[Selection], settings: RunSettings) -> None:
    """Raises InputError for a fold that cannot be trained as it is asked for, before the first one trains.

    Such is a search where the slicing was set by hand, and a training where a search is on its way, or whose slicing
    file cannot be read, does not fit, or is not what the finished training had.
    """
    for selection in selections:
        supernet, final = SupernetFolder(selection, settings.supernet_trainer), FoldFolder(selection, settings.trainer)
        if settings.search:
            for file in (selection.set_slicing_file, supernet.slicing_file):
                if not file.is_file():
                    continue
                content = read_slicing_file(file)
                if (how := content.choice.how_chosen) != "search":
                    raise InputError(
                        f"fold {selection.fold} is not searched, since its slicing was set by hand ({how}): leave "
                        f"the search out, or delete {file}"
                    )
                content.check_fits(selection.n_blocks, selection.n_dims, file)
            check_searched_as_asked(supernet, settings)
            if (final.is_trained or final.is_in_training) and not is_chosen(supernet, settings):
                raise InputError(
                    f"fold {selection.fold} is trained without these finals, in {final.path}: leave --finalists out, "
                    "or move that folder away to train it anew"
                )
            if final.is_trained and not supernet.slicing_file.is_file():
                raise InputError(
                    f"fold {selection.fold} was trained without this search, in {final.path}: leave the search out, or "
                    "move that folder away to search and train it anew"
                )
        elif (chosen := chosen_file(supernet, settings)) is not None:
            read_slicing_file(chosen).check_fits(selection.n_blocks, selection.n_dims, chosen)
            check_final_slicing(final, chosen)


def check_searched_as_asked(supernet: SupernetFolder, settings: RunSettings) -> None:
    """Raises InputError, naming both values, if a fold's finished search had another one than an option that is given.

    A search that is not finished, or is of another training of the supernet, compares its settings itself.
    """
    if not supernet.slicing_file.is_file():
        return
    content = read_slicing_file(supernet.slicing_file)
    had = content.choice.details.get("settings", {})
    if not content.complete or not isinstance(had, dict):
        return
    words = settings.search_arguments
    for option, asked in zip(words[::2], words[1::2], strict=True):
        flag = "--budget" if option == "--max-step" else option
        found = budget_of(supernet, had, asked) if flag == "--budget" else had.get(flag[2:])
        if found is None or str(found) == asked:
            continue
        if not supernet.is_trained or content.supernet_checkpoint_sha256 != sha256_of_file(supernet.checkpoint):
            return
        anew = shell_line("slicemamba", *search_arguments(supernet, settings), "--discard")
        raise InputError(
            f"the slicing of fold {supernet.selection.fold} was searched with {flag} {found}, not {asked}: leave "
            f"{flag} out to take it, or search anew with '{anew}'"
        )


def budget_of(supernet: SupernetFolder, had: Mapping[str, Any], asked: str) -> str | None:
    """The budget that a search had, as a share of the fixed network's step; None where it is not known.

    had: the search's settings. asked: which is returned where the search would make the same limit of it.
    """
    from nnunetv2_slicemamba.search.evaluation.step_costs import read_step_costs  # which loads PyTorch

    limit = had.get("max_step_ms")
    if limit is None:
        return "none"
    costs = read_step_costs(supernet)
    if costs is None:
        return None
    same = math.isclose(limit, float(asked.rstrip("%")) / 100 * costs.fixed, abs_tol=0.001)
    return asked if same else f"{100 * limit / costs.fixed:.4g}%"


def is_chosen(supernet: SupernetFolder, settings: RunSettings) -> bool:
    """False where finals are asked for and the fold's search, which is complete, has chosen without them."""
    if not supernet.slicing_file.is_file():
        return True
    content = read_slicing_file(supernet.slicing_file)
    return not content.complete or has_finals(content.choice, settings)


def tell_slicings(selections: Sequence[Selection], settings: RunSettings, console: Console) -> None:
    """Says which slicing every fold is trained with that has not begun, and how to choose another."""
    fixed = []
    for selection in selections:
        file = chosen_file(SupernetFolder(selection, settings.supernet_trainer), settings)
        final = FoldFolder(selection, settings.trainer)
        if final.is_trained or final.is_in_training:
            continue
        if file is not None:
            console.print(f"Slicing, fold {selection.fold}: {read_slicing_file(file).choice.how_chosen}, in {file}")
        elif selection.n_blocks:
            fixed.append(selection)
    if fixed:
        folds = ", ".join(str(selection.fold) for selection in fixed)
        console.print(
            f"Slicing, fold {folds}: {fixed_in_words(fixed[0].n_dims, fixed[0].n_blocks)}, the fixed one; "
            "--slicing chooses another, --search searches one for each fold"
        )
