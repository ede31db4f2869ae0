"""The figures of one fold's search, from its folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.names import fold_order
from nnunetv2_slicemamba.search.figures.data import FigureData, FoldChoice
from nnunetv2_slicemamba.search.figures.page import write_figures
from nnunetv2_slicemamba.search.figures.stages import stages_of
from nnunetv2_slicemamba.search.fitness import FITNESS_DEFINITION, title_of
from nnunetv2_slicemamba.search.ledger.fold_ledger import read_fold_ledger
from nnunetv2_slicemamba.search.ledger.ledger import export_study, has_ledger, read_ledger
from nnunetv2_slicemamba.search.ledger.storage import LedgerError
from nnunetv2_slicemamba.search.ledger.study import StudyRefusedError
from nnunetv2_slicemamba.search.objectives import Cost, stored_cost
from nnunetv2_slicemamba.search.records import Record, history_of
from nnunetv2_slicemamba.slicing.file import SlicingFileError, read_slicing_file

if TYPE_CHECKING:
    from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder

STUDY_SECONDS = 1.0  # to wait for a search that copies its evaluations into the study


def write_fold_figures(
    folder: SupernetFolder,
    records: Sequence[Record],
    console: Console | None = None,
    cost: Cost | None = None,
    definition: str = FITNESS_DEFINITION,
) -> Path:
    """Draws the figures of a fold's search into its slicing_search folder; returns the page.

    records: of the search, ordered by (generation, index). cost: what it measured, None for nothing. definition: of the
    fitness. Other folds'
    searches take part where they lie in their slicing_search folders; one that cannot be read is left out. Raises
    ValueError without any defined fitness, or if none is within the cost's limit.
    """
    selection = folder.selection
    fold = str(selection.fold)
    data = FigureData(
        dataset=selection.dataset,
        configuration=selection.configuration,
        plans_name=selection.plans_name,
        trainer=folder.trainer,
        fold=fold,
        records=records,
        candidates=selection.candidates,
        stages=stages_of(selection.arch_kwargs),
        cost=cost,
        fitness_title=title_of(definition),
    )
    own = FoldChoice(data.slicing, history_of(records))
    folds = {**_other_folds(folder), fold: own}
    ordered = sorted(folds, key=fold_order)
    complete = replace(data, folds={name: folds[name] for name in ordered})
    if console is None:
        return write_figures(complete, folder.search)
    with console.status("drawing the figures"):
        return write_figures(complete, folder.search)


def redraw(folder: SupernetFolder, storage: str | None, study: str | None, console: Console | None = None) -> Path:
    """The figures of the evaluations that a search has made so far, and their study for Optuna, completed if it can be.

    Raises LedgerError if there is no evaluation.
    """
    found = storage or folder.study
    stored, records = read_ledger(found, study, folder=folder.search)
    if not records:
        raise LedgerError(f"the search in {found} has no evaluation yet; run `slicemamba search` for this fold first")
    cost, definition = stored_cost(stored.get("settings", {})), stored.get("fitness_definition", FITNESS_DEFINITION)
    page = write_fold_figures(folder, records, console, cost, definition)
    try:
        export_study(found, study, folder.search, timeout=STUDY_SECONDS)
    except (LedgerError, StudyRefusedError) as error:
        # a search that goes on writes it itself; the figures do not need it
        (console or PlainConsole()).print(
            f"The study for Optuna was not completed: {error}", markup=False, highlight=False, soft_wrap=True
        )
    return page


def _other_folds(folder: SupernetFolder) -> dict[str, FoldChoice]:
    """Slicings and evaluations of the other folds' searches; a slicing that was set by hand is none of theirs."""
    found = {}
    for fold, own in folder.folds.items():
        try:
            content = read_slicing_file(own.slicing_file)
            content.check_fits(folder.selection.n_blocks, folder.selection.n_dims, own.slicing_file)
            if content.choice.how_chosen != "search":
                continue
            records = read_fold_ledger(own.search)[1] if has_ledger(own.study) else []
        except (SlicingFileError, LedgerError):
            continue
        found[str(fold)] = FoldChoice(content.slicing, history_of(records))
    return found
