"""The search of a fold, from its trained supernet to best_slicing.json."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from nnunetv2_slicemamba.common.folder_lock import in_use
from nnunetv2_slicemamba.common.hashing import sha256_of_file, sha256_of_names
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.search.budget import require_affordable
from nnunetv2_slicemamba.search.choosing.pareto import PARETO_FILE, Front, write_front
from nnunetv2_slicemamba.search.choosing.write_choice import was_chosen_in_finals, write_choice
from nnunetv2_slicemamba.search.evaluation.cost_measurement import measured_with, require_measurable, require_same
from nnunetv2_slicemamba.search.evaluation.step_costs import step_costs_of
from nnunetv2_slicemamba.search.evaluation.supernet_fold import (
    MIRRORING,
    PREDICTION,
    TILE_STEP_SIZE,
    SupernetFold,
    check_same_plans,
    require_checkpoint,
)
from nnunetv2_slicemamba.search.figures.fold import write_fold_figures
from nnunetv2_slicemamba.search.fingerprint import Fingerprint
from nnunetv2_slicemamba.search.ledger.evaluation_log import LOG_FOLDER
from nnunetv2_slicemamba.search.ledger.ledger import Ledger, open_ledger
from nnunetv2_slicemamba.search.ledger.storage import LedgerError, location_of
from nnunetv2_slicemamba.search.ledger.study_export import StudyExport
from nnunetv2_slicemamba.search.loop import SearchResult, run_search
from nnunetv2_slicemamba.search.objectives import STEP
from nnunetv2_slicemamba.search.records import Record
from nnunetv2_slicemamba.search.settings import SearchSettings
from nnunetv2_slicemamba.search.workers.base import BatchedWorkers, Workers
from nnunetv2_slicemamba.search.workers.meeting import meet
from nnunetv2_slicemamba.search.workers.processes import Process
from nnunetv2_slicemamba.search.workers.shared import SharedWorkers, help_out
from nnunetv2_slicemamba.slicing.candidates import Architecture
from nnunetv2_slicemamba.slicing.choice import SlicingChoice
from nnunetv2_slicemamba.slicing.measured_on import MeasuredOn
from nnunetv2_slicemamba.trainers.roles import require_supernet_trainer

if TYPE_CHECKING:
    import torch


_CONDITIONS = "measured_with"


@dataclass(frozen=True)
class FoldSearch:
    """Result of a fold's search: the best fitness, the number of evaluations, and the files it wrote.

    complete: False if the time budget ended it. location: where the evaluations are, for people to read. records: of
    the evaluations. front, pareto: the Pareto front and its file, None where the search measures no cost.
    chosen_in_finals: whether the slicing file was kept, since finals had chosen another slicing than the best.
    """

    fitness: float
    evaluations: int
    evaluated_now: int
    file: Path
    figures: Path
    complete: bool
    measured_on: MeasuredOn
    location: str
    records: tuple[Record, ...] = ()
    front: Front | None = None
    pareto: Path | None = None
    chosen_in_finals: bool = False


@dataclass(frozen=True)
class SearchOptions:
    """Settings of one call that do not change what the search finds.

    storage: Optuna storage URL of the study, the evaluations' copy; None for a SQLite file in the fold's slicing_search
    folder. study: its name. discard: delete evaluations and study. time_budget: seconds after which no further
    evaluation begins, None for no end. cache_bytes: for features that architectures share, see PathEvaluation. finals:
    whether finals follow, before which the slicing file is not complete.
    """

    storage: str | None = None
    study: str | None = None
    discard: bool = False
    time_budget: float | None = None
    cache_bytes: int | None = None
    finals: bool = False


@dataclass(frozen=True)
class PreparedSearch:
    """A fold that can be searched: its supernet with the cases, and what the search's evaluations depend on."""

    fold: SupernetFold
    fingerprint: Fingerprint

    @property
    def folder(self) -> SupernetFolder:
        return self.fold.folder

    @property
    def allowed(self) -> Callable[[Architecture], bool] | None:
        """Whether an architecture is within the limit of a step's time; None without such a limit."""
        cost, costs = self.fingerprint.settings.cost, self.fold.step_costs
        if cost is None or cost.limit is None or costs is None:
            return None
        return lambda architecture: cost.allows(costs.measure(architecture))

    def storage(self, given: str | None) -> str | Path:
        """Place of the study, the evaluations' copy for Optuna: as given, else a file of the fold."""
        return given or self.folder.study


def prepare_search(
    folder: SupernetFolder,
    settings: SearchSettings,
    device: torch.device,
    cache_bytes: int | None = None,
    keep: bool = False,
) -> PreparedSearch:
    """Finds supernet and cases of a fold. cache_bytes: see PathEvaluation. keep: write the step costs, if they count.

    Raises InputError if the device cannot tell the settings' cost, SupernetError without a trained supernet or cases,
    HoldoutError if the supernet was trained with another holdout than the fold has now.
    """
    require_measurable(settings.cost, device)
    require_supernet_trainer(folder.trainer)
    checkpoint = require_checkpoint(folder)
    plans_hash = check_same_plans(folder)
    costs = None
    if settings.cost is not None and settings.cost.kind == STEP:
        costs = step_costs_of(folder, device, keep)
        require_affordable(settings.cost, costs)
    fold = SupernetFold(folder, device, cache_bytes, settings.cost, costs)
    selection = folder.selection
    fingerprint = Fingerprint(
        dataset=selection.dataset,
        trainer=folder.trainer,
        plans_name=selection.plans_name,
        configuration=selection.configuration,
        fold=selection.fold,
        supernet_checkpoint_sha256=sha256_of_file(checkpoint),
        plans_sha256=plans_hash,
        n_blocks=selection.n_blocks,
        candidates=selection.candidates,
        settings=settings,
        evaluation={
            "tile_step_size": TILE_STEP_SIZE,
            "mirroring": MIRRORING,
            "prediction": PREDICTION,
            **fold.measured_on.for_fingerprint(),
            **measured_with(settings.cost, device),
            **({} if costs is None else {"step_costs_sha256": sha256_of_names([json.dumps(costs.as_dict())])}),
        },
    )
    return PreparedSearch(fold, fingerprint)


def search_fold(
    folder: SupernetFolder,
    settings: SearchSettings,
    device: torch.device,
    options: SearchOptions | None = None,
    console: Console | None = None,
) -> FoldSearch | None:
    """Searches the slicing of a fold with its trained supernet, or continues that search.

    Writes best_slicing.json and the figures into slicing_search. Where a launcher started several processes (torchrun),
    they share the evaluations; the first of them writes, the others return None.
    Raises as prepare_search; FolderInUseError while the supernet is being trained; StudyRefusedError if the study
    belongs to another search; LedgerError if it cannot be read or written, or the result cannot, saying what is kept.
    """
    options = options or SearchOptions()
    process = Process.from_environment()
    device = process.device(device)
    if not process.is_writer:
        take_part(folder, settings, device, options, process)
        return None
    with in_use(folder.path, shared=True) if folder.path.is_dir() else contextlib.nullcontext():
        return _search(
            prepare_search(folder, settings, device, options.cache_bytes, keep=True), options, process, console
        )


def _search(prepared: PreparedSearch, options: SearchOptions, process: Process, console: Console | None) -> FoldSearch:
    folder, settings = prepared.folder, prepared.fingerprint.settings
    where = prepared.storage(options.storage)
    with (
        open_ledger(where, prepared.fingerprint, options.study, options.discard, folder.search) as ledger,
        StudyExport(ledger, console),
    ):
        with workers_of(prepared, ledger, process) as workers:
            budget = options.time_budget
            result = run_search(workers, settings, ledger, True, console, budget, prepared.allowed)
        try:
            return write_result(prepared, result, ledger, console, options.finals)
        except OSError as error:
            raise LedgerError(
                f"the result could not be written to {folder.search} ({error}). All {len(result.records)} evaluations "
                f"are kept in {ledger.location}; make room, and the same command writes it without evaluating them "
                "again"
            ) from error


def take_part(
    folder: SupernetFolder, settings: SearchSettings, device: torch.device, options: SearchOptions, process: Process
) -> None:
    """Evaluates for the process that writes, until that one ends the search."""
    store = meet(process, folder.search / LOG_FOLDER)

    def evaluator() -> SupernetFold:
        require_same(json.loads(store.get(_CONDITIONS)), measured_with(settings.cost, device))
        return SupernetFold(folder, device, options.cache_bytes, settings.cost)

    help_out(store, process.rank, evaluator, folder.search / LOG_FOLDER)


def write_result(
    prepared: PreparedSearch, result: SearchResult, ledger: Ledger, console: Console | None, finals: bool = False
) -> FoldSearch:
    """Writes best_slicing.json, the Pareto front where a cost was measured, and the figures.

    What finals chose is kept if nothing was evaluated since. finals: as of SearchOptions.
    """
    folder, settings = prepared.folder, prepared.fingerprint.settings
    hashes = prepared.fingerprint.supernet_checkpoint_sha256, prepared.fingerprint.plans_sha256
    cost = settings.cost
    front = None
    if cost is not None:
        front = Front.of(result.records, result.best, cost, measured_with(cost, prepared.fold.device))
    repeated = result.evaluated_now == 0 and not finals
    in_finals = repeated and was_chosen_in_finals(folder.slicing_file, *hashes, settings.as_dict())
    if not in_finals:
        chosen = chosen_by_search(prepared.fingerprint, result, ledger, front)
        write_choice(folder, chosen, *hashes, prepared.fold.measured_on, result.complete and not finals)
    pareto = None
    if front is None:
        (folder.search / PARETO_FILE).unlink(missing_ok=True)  # of a search that this one replaces
    else:
        pareto = write_front(front, folder.search, settings.objective, prepared.fingerprint.candidates)
    return FoldSearch(
        fitness=result.best.fitness,
        evaluations=len(result.records),
        evaluated_now=result.evaluated_now,
        file=folder.slicing_file,
        figures=write_fold_figures(folder, result.records, console, cost),
        complete=result.complete,
        measured_on=prepared.fold.measured_on,
        location=ledger.location,
        records=result.records,
        front=front,
        pareto=pareto,
        chosen_in_finals=in_finals,
    )


def chosen_by_search(
    fingerprint: Fingerprint, result: SearchResult, ledger: Ledger, front: Front | None
) -> SlicingChoice:
    """The slicing of the search's best architecture, and how it was found."""
    best, settings = result.best, fingerprint.settings
    return SlicingChoice(
        slicing=tuple(fingerprint.candidates[index] for index in best.architecture),
        how_chosen="search",
        architecture=best.architecture,
        fitness=best.fitness,
        seed=settings.seed,
        details={
            "evaluations": len(result.records),
            "generation": best.generation,
            "origin": best.origin,
            "settings": settings.as_dict(),
            **({} if front is None else {"objective": settings.objective, "cost": front.cost_entry()}),
            "ledger": location_of(ledger.storage),
            "study": ledger.study_name,
        },
    )


@contextlib.contextmanager
def workers_of(prepared: PreparedSearch, ledger: Ledger, process: Process) -> Iterator[Workers]:
    """This process alone, or with those that were launched beside it."""
    if process.world == 1:
        yield BatchedWorkers(prepared.fold)
    else:
        store = meet(process, ledger.log.folder)
        store.set(_CONDITIONS, json.dumps(measured_with(prepared.fingerprint.settings.cost, prepared.fold.device)))
        with SharedWorkers(store, process.world, prepared.fold, ledger.log) as shared:
            yield shared
