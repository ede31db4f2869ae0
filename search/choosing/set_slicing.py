"""How does a fold get its slicing without a search?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_slicemamba.common.hashing import sha256_of_plans
from nnunetv2_slicemamba.search.choosing.choices import choose_slicing
from nnunetv2_slicemamba.search.evaluation.supernet_fold import require_supernet_trainer
from nnunetv2_slicemamba.search.ledger.fold_ledger import read_fold_ledger
from nnunetv2_slicemamba.search.ledger.ledger import has_ledger
from nnunetv2_slicemamba.search.objectives import stored_cost
from nnunetv2_slicemamba.search.proposals.ranking import feasible_history
from nnunetv2_slicemamba.search.records import History
from nnunetv2_slicemamba.search.run import write_choice
from nnunetv2_slicemamba.slicing.choice import SlicingChoice
from nnunetv2_slicemamba.slicing.find import STUDY_FILE, slicing_search_folder

if TYPE_CHECKING:
    from nnunetv2_slicemamba.planning.selection import Selection


def set_slicing(selection: Selection, trainer: str, value: str) -> tuple[Path, SlicingChoice]:
    """Writes a fold's best_slicing.json for `slicemamba slicing --set VALUE`, without a search.

    A file that was there before is kept beside it. Returns the file and what it holds. Raises ValueError naming the
    value, the rule and the remedy.
    """
    require_supernet_trainer(trainer)
    choice = choose_slicing(
        value,
        selection.n_blocks,
        selection.n_dims,
        selection.candidates,
        lambda: fold_histories(selection, trainer),
    )
    return write_choice(
        selection, trainer, choice, None, sha256_of_plans(selection.plans, selection.configuration)
    ), choice


def fold_histories(selection: Selection, trainer: str) -> Mapping[int | str, History]:
    """The evaluations of every fold's search that lies in its slicing_search folder; NaN above a search's limit."""
    found: dict[int | str, History] = {}
    for folder in sorted(selection.configuration_folder(trainer).glob("fold_*")):
        search = slicing_search_folder(folder)
        if has_ledger(search / STUDY_FILE):
            name = folder.name.removeprefix("fold_")
            stored, records = read_fold_ledger(search)
            cost = stored_cost(stored.get("settings", {}))
            found[int(name) if name.isdigit() else name] = feasible_history(records, cost)
    return found
