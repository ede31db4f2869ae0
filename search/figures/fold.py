"""The figures of one fold's search, from its folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_slicemamba.search.figures.data import FigureData, FoldChoice
from nnunetv2_slicemamba.search.figures.page import write_figures
from nnunetv2_slicemamba.search.figures.stages import stages_of
from nnunetv2_slicemamba.search.ledger.fold_ledger import read_fold_ledger
from nnunetv2_slicemamba.search.ledger.ledger import read_ledger
from nnunetv2_slicemamba.search.ledger.storage import LedgerError
from nnunetv2_slicemamba.search.objectives import Cost, stored_cost
from nnunetv2_slicemamba.search.records import Record, history_of
from nnunetv2_slicemamba.slicing.file import SlicingFileError, read_slicing_file
from nnunetv2_slicemamba.slicing.find import SLICING_FILE, STUDY_FILE, slicing_search_folder

if TYPE_CHECKING:
    from rich.console import Console

    from nnunetv2_slicemamba.planning.selection import Selection


def write_fold_figures(
    selection: Selection,
    trainer: str,
    records: Sequence[Record],
    console: Console | None = None,
    cost: Cost | None = None,
) -> Path:
    """Draws the figures of a fold's search into its slicing_search folder; returns the page.

    records: of the search, ordered by (generation, index). cost: what it measured, None for nothing. Other folds'
    searches take part where they lie in their slicing_search folders; one that cannot be read is left out. Raises
    ValueError without any defined fitness, or if none is within the cost's limit.
    """
    fold = str(selection.fold)
    data = FigureData(
        dataset=selection.dataset,
        configuration=selection.configuration,
        plans_name=selection.plans_name,
        trainer=trainer,
        fold=fold,
        records=records,
        candidates=selection.candidates,
        stages=stages_of(selection.arch_kwargs),
        cost=cost,
    )
    own = FoldChoice(data.slicing, history_of(records))
    folds = {**_other_folds(selection, trainer), fold: own}
    ordered = sorted(folds, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))
    complete = replace(data, folds={name: folds[name] for name in ordered})
    folder = slicing_search_folder(selection.fold_folder(trainer))
    if console is None:
        return write_figures(complete, folder)
    with console.status("drawing the figures"):
        return write_figures(complete, folder)


def redraw(
    selection: Selection, trainer: str, storage: str | None, study: str | None, console: Console | None = None
) -> Path:
    """The figures of the evaluations that a search has made so far; LedgerError if there is none."""
    found = storage or slicing_search_folder(selection.fold_folder(trainer)) / STUDY_FILE
    stored, records = read_ledger(found, study)
    if not records:
        raise LedgerError(f"the search in {found} has no evaluation yet; run `slicemamba search` for this fold first")
    return write_fold_figures(selection, trainer, records, console, stored_cost(stored.get("settings", {})))


def _other_folds(selection: Selection, trainer: str) -> dict[str, FoldChoice]:
    """What the other folds' searches found; a slicing that was set by hand is none of theirs."""
    found = {}
    for folder in sorted(selection.configuration_folder(trainer).glob("fold_*")):
        search = slicing_search_folder(folder)
        try:
            content = read_slicing_file(search / SLICING_FILE)
            content.check_fits(selection.n_blocks, selection.n_dims)
            if content.choice.how_chosen != "search":
                continue
            records = read_fold_ledger(search)[1] if (search / STUDY_FILE).is_file() else []
        except (SlicingFileError, LedgerError):
            continue
        found[folder.name.removeprefix("fold_")] = FoldChoice(content.slicing, history_of(records))
    return found
