"""The search of a fold: from a selection to best_slicing.json."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from nnunetv2_slicemamba.common.hashing import sha256_of_file, sha256_of_plans
from nnunetv2_slicemamba.search.choosing.pareto import PARETO_FILE, Front, write_front
from nnunetv2_slicemamba.search.evaluation.cost_measurement import measured_with, require_measurable, require_same
from nnunetv2_slicemamba.search.evaluation.supernet_fold import (
    MIRRORING,
    PREDICTION,
    TILE_STEP_SIZE,
    SupernetError,
    SupernetFold,
    require_checkpoint,
    require_supernet_trainer,
)
from nnunetv2_slicemamba.search.figures.fold import write_fold_figures
from nnunetv2_slicemamba.search.fingerprint import Fingerprint
from nnunetv2_slicemamba.search.fitness import FITNESS_DEFINITION
from nnunetv2_slicemamba.search.ledger.evaluation_log import LOG_FOLDER
from nnunetv2_slicemamba.search.ledger.ledger import Ledger, open_ledger
from nnunetv2_slicemamba.search.ledger.storage import LedgerError, location_of
from nnunetv2_slicemamba.search.ledger.study_export import StudyExport
from nnunetv2_slicemamba.search.loop import SearchResult, run_search
from nnunetv2_slicemamba.search.settings import SearchSettings
from nnunetv2_slicemamba.search.workers.base import BatchedWorkers, Workers
from nnunetv2_slicemamba.search.workers.processes import Process
from nnunetv2_slicemamba.search.workers.shared import SharedWorkers, help_out
from nnunetv2_slicemamba.slicing.choice import SlicingChoice
from nnunetv2_slicemamba.slicing.file import SlicingFile, SlicingFileError, read_slicing_file, write_slicing_file
from nnunetv2_slicemamba.slicing.find import SLICING_FILE, STUDY_FILE, slicing_search_folder
from nnunetv2_slicemamba.slicing.measured_on import MeasuredOn

if TYPE_CHECKING:
    import torch

    from nnunetv2_slicemamba.planning.selection import Selection


_CONDITIONS = "measured_with"


@dataclass(frozen=True)
class FoldSearch:
    """What a search of a fold ended with: the best fitness, how many evaluations, and the files it wrote: the
    slicing, and the page of figures.

    complete: False if the time budget ended it. location: where the evaluations are, for people to read. front, pareto:
    the Pareto front and its file, None where the search measures no cost.
    """

    fitness: float
    evaluations: int
    evaluated_now: int
    file: Path
    figures: Path
    complete: bool
    measured_on: MeasuredOn
    location: str
    front: Front | None = None
    pareto: Path | None = None


@dataclass(frozen=True)
class PreparedSearch:
    """A fold that can be searched: its supernet with the cases, and what the search's evaluations depend on."""

    fold: SupernetFold
    fingerprint: Fingerprint
    folder: Path

    def storage(self, given: str | None) -> str | Path:
        """Place of the study, the evaluations' copy for Optuna: as given, else a file of the fold."""
        return given or self.folder / STUDY_FILE


def prepare_search(
    selection: Selection,
    trainer: str,
    settings: SearchSettings,
    device: torch.device,
    cache_bytes: int | None = None,
) -> PreparedSearch:
    """Finds supernet and cases of a fold; writes nothing. cache_bytes: see PathEvaluation.

    Raises InputError if the device cannot tell the settings' cost, SupernetError without a trained supernet or cases,
    HoldoutError if the supernet was trained with another holdout than the fold has now.
    """
    require_measurable(settings.cost, device)
    require_supernet_trainer(trainer)
    checkpoint = require_checkpoint(selection, trainer)
    plans_hash = check_same_plans(selection, trainer)
    fold = SupernetFold(selection, trainer, device, cache_bytes, settings.cost)
    fingerprint = Fingerprint(
        dataset=selection.dataset,
        trainer=trainer,
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
        },
    )
    return PreparedSearch(fold, fingerprint, slicing_search_folder(selection.fold_folder(trainer)))


def search_fold(
    selection: Selection,
    trainer: str,
    settings: SearchSettings,
    device: torch.device,
    storage: str | None = None,
    study: str | None = None,
    discard: bool = False,
    console: Console | None = None,
    time_budget: float | None = None,
    cache_bytes: int | None = None,
) -> FoldSearch | None:
    """Searches the slicing of a fold with its trained supernet, or continues that search.

    The evaluations are kept in the fold's slicing_search folder. storage: Optuna storage URL for their copy, a study;
    default a SQLite file in that folder. study: its name. discard: delete evaluations and study. time_budget: seconds
    after which no further evaluation begins. cache_bytes: for features that architectures share, see PathEvaluation.
    Writes best_slicing.json and the figures into slicing_search. Where a launcher started several processes (torchrun),
    they share the evaluations; the first of them writes, the others return None.
    Raises as prepare_search; StudyRefusedError if the study belongs to another search; LedgerError if it cannot be
    read or written, or the result cannot, saying what is kept.
    """
    process = Process.from_environment()
    device = process.device(device)
    if not process.is_writer:
        logs = slicing_search_folder(selection.fold_folder(trainer)) / LOG_FOLDER
        store = process.connect()

        def evaluator() -> SupernetFold:
            require_same(json.loads(store.get(_CONDITIONS)), measured_with(settings.cost, device))
            return SupernetFold(selection, trainer, device, cache_bytes, settings.cost)

        help_out(store, process.rank, evaluator, logs)
        return None
    prepared = prepare_search(selection, trainer, settings, device, cache_bytes)
    where = prepared.storage(storage)
    with (
        open_ledger(where, prepared.fingerprint, study, discard, prepared.folder) as ledger,
        StudyExport(ledger, console),
    ):
        with workers_of(prepared, ledger, process) as workers:
            result = run_search(workers, settings, ledger, console=console, time_budget=time_budget)
        return write_result(selection, trainer, prepared, result, ledger, device, console)


def write_result(
    selection: Selection,
    trainer: str,
    prepared: PreparedSearch,
    result: SearchResult,
    ledger: Ledger,
    device: torch.device,
    console: Console | None,
) -> FoldSearch:
    """Writes what a search found: best_slicing.json, the Pareto front if there is one, and the figures."""
    settings = prepared.fingerprint.settings
    best, cost = result.best, settings.cost
    conditions = measured_with(cost, device)
    front = None if cost is None else Front.of(result.records, best, cost, conditions)
    choice = SlicingChoice(
        slicing=tuple(selection.candidates[index] for index in best.architecture),
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
    measured_on = prepared.fold.measured_on
    try:
        file = write_choice(
            selection,
            trainer,
            choice,
            prepared.fingerprint.supernet_checkpoint_sha256,
            prepared.fingerprint.plans_sha256,
            measured_on,
            result.complete,
        )
        pareto = None
        if front is None:
            (prepared.folder / PARETO_FILE).unlink(missing_ok=True)  # of a search that this one replaces
        else:
            pareto = write_front(front, prepared.folder, settings.objective, selection.candidates)
        figures = write_fold_figures(selection, trainer, result.records, console, cost)
    except OSError as error:
        raise LedgerError(
            f"the result could not be written to {prepared.folder} ({error}). All {len(result.records)} evaluations "
            f"are kept in {ledger.location}; make room, and the same command writes it without evaluating them again"
        ) from error
    return FoldSearch(
        best.fitness,
        len(result.records),
        result.evaluated_now,
        file,
        figures,
        result.complete,
        measured_on,
        ledger.location,
        front,
        pareto,
    )


@contextlib.contextmanager
def workers_of(prepared: PreparedSearch, ledger: Ledger, process: Process) -> Iterator[Workers]:
    """This process alone, or with those that were launched beside it."""
    if process.world == 1:
        yield BatchedWorkers(prepared.fold)
    else:
        store = process.connect()
        store.set(_CONDITIONS, json.dumps(measured_with(prepared.fingerprint.settings.cost, prepared.fold.device)))
        with SharedWorkers(store, process.world, prepared.fold, ledger.log) as shared:
            yield shared


def write_choice(
    selection: Selection,
    trainer: str,
    choice: SlicingChoice,
    checkpoint_hash: str | None,
    plans_hash: str,
    measured_on: MeasuredOn | None = None,
    complete: bool = True,
) -> Path:
    """Writes best_slicing.json into the fold's slicing_search folder; one with another slicing is kept beside it."""
    folder = slicing_search_folder(selection.fold_folder(trainer))
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / SLICING_FILE
    content = SlicingFile(
        choice=choice,
        candidates=selection.candidates,
        fitness_definition=FITNESS_DEFINITION if choice.fitness is not None else None,
        dataset=selection.dataset,
        configuration=selection.configuration,
        plans_name=selection.plans_name,
        fold=selection.fold,
        supernet_checkpoint_sha256=checkpoint_hash,
        plans_sha256=plans_hash,
        measured_on=measured_on,
        complete=complete,
    )
    if file.is_file() and not holds(file, choice):
        shutil.copy2(file, folder / f"previous_{SLICING_FILE}")
    write_slicing_file(content, file)
    return file


def holds(file: Path, choice: SlicingChoice) -> bool:
    """Whether a slicing file can be read and has the slicing of `choice`."""
    try:
        return read_slicing_file(file).slicing == choice.slicing
    except SlicingFileError:
        return False


def check_same_plans(selection: Selection, trainer: str) -> str:
    """The hash of the plans, which must be those that the supernet was trained with."""
    now = sha256_of_plans(selection.plans, selection.configuration)
    trained_file = selection.configuration_folder(trainer) / "plans.json"
    if trained_file.is_file():
        then = sha256_of_plans(json.loads(trained_file.read_text()), selection.configuration)
        if then != now:
            raise SupernetError(
                f"plans {selection.plans_name!r} in nnUNet_preprocessed (SHA-256 {now[:12]}...) are not those that the "
                f"supernet was trained with ({trained_file}, {then[:12]}...); train the supernet anew, or restore them"
            )
    return now
