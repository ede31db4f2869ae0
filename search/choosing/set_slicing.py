"""Setting a fold's slicing without a search."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nnunetv2_slicemamba.common.hashing import sha256_of_plans
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.search.choosing.choices import choose_slicing
from nnunetv2_slicemamba.search.choosing.of_folder import choose_of_folder, is_of_folder
from nnunetv2_slicemamba.search.choosing.write_choice import write_choice
from nnunetv2_slicemamba.search.ledger.fold_ledger import read_fold_ledger
from nnunetv2_slicemamba.search.ledger.ledger import has_ledger
from nnunetv2_slicemamba.search.objectives import stored_cost
from nnunetv2_slicemamba.search.proposals.ranking import feasible_history
from nnunetv2_slicemamba.search.records import History
from nnunetv2_slicemamba.slicing.choice import SlicingChoice
from nnunetv2_slicemamba.trainers.roles import require_supernet_trainer


def set_slicing(folder: SupernetFolder, value: str) -> tuple[Path, SlicingChoice]:
    """Writes the file of a fold's slicing for `slicemamba slicing --set VALUE`, without a search.

    folder: of a supernet, whose searches a consensus is made from. One that was set before is kept beside it. Returns
    the file and what it holds. Raises as named_choice does.
    """
    choice = named_choice(folder, value)
    plans_hash = sha256_of_plans(folder.selection.plans, folder.selection.configuration)
    return write_choice(folder, choice, None, plans_hash, by_hand=True), choice


def named_choice(folder: SupernetFolder, value: str) -> SlicingChoice:
    """The slicing that a user names for a fold; ValueError naming the value, the rule and the remedy."""
    require_supernet_trainer(folder.trainer)
    selection = folder.selection
    if is_of_folder(value):
        return choose_of_folder(folder, value)
    return choose_slicing(
        value, selection.n_blocks, selection.n_dims, selection.candidates, lambda: fold_histories(folder)
    )


def fold_histories(folder: SupernetFolder) -> Mapping[int | str, History]:
    """The evaluations of every fold's search that lies in its slicing_search folder; NaN above a search's limit."""
    found: dict[int | str, History] = {}
    for fold, own in folder.folds.items():
        if has_ledger(own.study):
            stored, records = read_fold_ledger(own.search)
            found[fold] = feasible_history(records, stored_cost(stored.get("settings", {})))
    return found
