"""Search a fold, or set its slicing: from a selection to best_slicing.json."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from .choices import choose_slicing
from .figure_fold import write_fold_figures
from .find import SLICING_FILE, STUDY_FILE, slicing_search_folder
from .fingerprint import Fingerprint
from .fitness import FITNESS_DEFINITION
from .hashing import sha256_of_file, sha256_of_plans
from .journal import Journal, Recovering, search_name
from .ledger import Ledger, open_ledger, read_ledger
from .loop import run_search
from .measured_on import MeasuredOn
from .processes import Process
from .records import History, history_of
from .settings import SearchSettings
from .shared import Shared, help_out
from .slicing_choice import SlicingChoice
from .slicing_file import SlicingFile, SlicingFileError, read_slicing_file, write_slicing_file
from .storage import LedgerError
from .supernet_fold import (
    MIRRORING,
    PREDICTION,
    TILE_STEP_SIZE,
    SupernetError,
    SupernetFold,
    require_checkpoint,
    require_supernet_trainer,
)
from .workers import Together, Workers

if TYPE_CHECKING:
    import torch

    from nnunetv2_slicemamba.selection import Selection


@dataclass(frozen=True)
class FoldSearch:
    """What a search of a fold ended with: the best fitness, how many evaluations, and the files it wrote: the
    slicing, and the page of figures.

    complete: False if the time budget ended it. location: where the evaluations are, for people to read.
    """

    fitness: float
    evaluations: int
    evaluated_now: int
    file: Path
    figures: Path
    complete: bool
    measured_on: MeasuredOn
    location: str


@dataclass(frozen=True)
class PreparedSearch:
    """A fold that can be searched: its supernet with the cases, and what the search's evaluations depend on."""

    fold: SupernetFold
    fingerprint: Fingerprint
    folder: Path

    def storage(self, given: str | None) -> str | Path:
        """Where the evaluations are kept: as given, else in a file of the fold."""
        return given or self.folder / STUDY_FILE


def prepare_search(
    selection: Selection,
    trainer: str,
    settings: SearchSettings,
    device: torch.device,
    cache_bytes: int | None = None,
) -> PreparedSearch:
    """Finds supernet and cases of a fold; writes nothing. cache_bytes: see PathEvaluation.

    Raises SupernetError without a trained supernet or cases, HoldoutError if the supernet was trained with another
    holdout than the fold has now.
    """
    require_supernet_trainer(trainer)
    checkpoint = require_checkpoint(selection, trainer)
    plans_hash = check_same_plans(selection, trainer)
    fold = SupernetFold(selection, trainer, device, cache_bytes)
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

    storage: Optuna storage URL, default a SQLite file in the fold's slicing_search folder. study: its name there.
    discard: delete what the study holds. time_budget: seconds after which no further evaluation begins.
    cache_bytes: for features that architectures share, see PathEvaluation.
    Writes best_slicing.json and the figures into slicing_search. Where a launcher started several processes (torchrun),
    they share the evaluations; the first of them writes, the others return None.
    Raises as prepare_search; StudyRefusedError if the study belongs to another search; LedgerError if it cannot be
    read or written, or the result cannot, saying what is kept.
    """
    process = Process.of()
    device = process.device(device)
    if not process.is_writer:
        folder = slicing_search_folder(selection.fold_folder(trainer))
        help_out(process.connect(), lambda: SupernetFold(selection, trainer, device, cache_bytes), folder)
        return None
    prepared = prepare_search(selection, trainer, settings, device, cache_bytes)
    with (
        open_ledger(prepared.storage(storage), prepared.fingerprint, study, discard) as ledger,
        workers_of(prepared, ledger, process, discard) as workers,
    ):
        result = run_search(workers, settings, ledger, console=console, time_budget=time_budget)
    best = result.best
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
            "ledger": ledger.location,
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
        figures = write_fold_figures(selection, trainer, result.records, console)
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
    )


@contextlib.contextmanager
def workers_of(prepared: PreparedSearch, ledger: Ledger, process: Process, discard: bool) -> Iterator[Workers]:
    """This process alone, or with those that were launched beside it."""
    journal = Journal(prepared.folder, search_name(prepared.fingerprint, ledger.study_name, ledger.location))
    if discard:
        journal.clear()
    if process.world == 1:
        yield Recovering(Together(prepared.fold), journal)
    else:
        with Shared(process.connect(), process.world, prepared.fold, journal) as shared:
            yield Recovering(shared, journal)
    journal.clear()


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
    """The evaluations of every fold's search that lies in its slicing_search folder."""
    found: dict[int | str, History] = {}
    for folder in sorted(selection.configuration_folder(trainer).glob("fold_*")):
        study = slicing_search_folder(folder) / STUDY_FILE
        if study.is_file():
            name = folder.name.removeprefix("fold_")
            _, records = read_ledger(study)
            found[int(name) if name.isdigit() else name] = history_of(records)
    return found


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
