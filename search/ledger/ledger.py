"""How is every evaluation kept, so that nothing finished is ever lost?

An Optuna study, one trial per evaluation. A trial enters the storage finished and in one transaction,
after its evaluation, alone or together with others: a killed process leaves no half trial.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nnunetv2_slicemamba.common.json_files import plain_json
from nnunetv2_slicemamba.search.fingerprint import Fingerprint
from nnunetv2_slicemamba.search.ledger.bulk_trials import add_trials, count_trials
from nnunetv2_slicemamba.search.ledger.storage import (
    LedgerError,
    NoSearchError,
    advice,
    closing_on_error,
    is_missing,
    location_of,
    open_storage,
    quiet_optuna,
    reason_of,
    saying_what_failed,
)
from nnunetv2_slicemamba.search.ledger.trials import directions_of, records_of, trial_of
from nnunetv2_slicemamba.search.records import Record

if TYPE_CHECKING:  # Optuna takes as long to import as the rest of the search, and a training needs none of it
    import optuna
    from optuna.storages import RDBStorage

_FINGERPRINT_KEY = "slicing_search"
_REMEDY = "Give this search another study (--study NAME), or start anew (--discard deletes the {n} evaluations in it)"


class StudyRefusedError(ValueError):
    """The study holds another search's evaluations."""


class Ledger:
    """The evaluations of one search. Open one with open_ledger; usable as a context manager.

    fingerprint: of the search. location: where the evaluations are, for people to read.
    """

    def __init__(self, study: optuna.Study, storage: RDBStorage, location: str, fingerprint: Fingerprint) -> None:
        self.fingerprint = fingerprint
        self.location = location
        self.study_name = study.study_name
        self._study = study
        self._storage = storage
        trials = study.get_trials(deepcopy=False)
        self._n_trials = len(trials)
        self._next_check = time.monotonic()
        self._records = records_of(trials)

    def records(self) -> list[Record]:
        """Every evaluation, ordered by (generation, index), whatever the order in which they were added."""
        return [self._records[key] for key in sorted(self._records)]

    def add(self, *records: Record) -> Record:
        """Keep evaluations, for good once this returns: all of them or none. Returns the last as it will be read again.

        Raises ValueError if a place is taken or details cannot be kept as JSON; LedgerError if the storage cannot be
        written or somebody else writes to the study.
        """
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        added = dict[tuple[int, int], Record]()
        for record in records:
            key = (record.generation, record.index)
            if key in self._records or key in added:
                raise ValueError(f"generation {key[0]} already has an evaluation number {key[1]} in {self.location}")
            added[key] = replace(record, details=plain_json(record.details))
        two_values = len(directions_of(self.fingerprint.settings.cost)) > 1
        per_block = self.fingerprint.n_candidates_per_block
        trials = [trial_of(record, per_block, two_values) for record in added.values()]
        try:
            self._refuse_second_writer()
            add_trials(self._storage, self._study, trials)
        except (StorageInternalError, SQLAlchemyError) as error:
            what = f"the evaluation of {records[0].architecture}"
            if len(records) > 1:
                what = f"{len(records)} evaluations, from {what.removeprefix('the evaluation of ')} on,"
            raise LedgerError(
                f"{what} could not be written to {self.location} ({reason_of(error)}). The {len(self._records)} "
                f"evaluations before {'it' if len(records) == 1 else 'them'} are kept there. {advice(error)}"
            ) from error
        self._n_trials += len(added)
        self._records.update(added)
        return added[key]

    def _refuse_second_writer(self) -> None:
        """Once a second at most: it asks the database, which may be far away."""
        if time.monotonic() < self._next_check:
            return
        n_trials = count_trials(self._storage, self._study)
        if n_trials != self._n_trials:
            raise LedgerError(
                f"study '{self.study_name}' in {self.location} has {n_trials} trials where this search left "
                f"{self._n_trials}: another process writes to it. Stop one of the two; the same command continues"
            )
        self._next_check = time.monotonic() + 1.0

    def close(self) -> None:
        """Let go of the storage; records() still answers."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def open_ledger(
    storage: str | Path, fingerprint: Fingerprint, study_name: str | None = None, discard: bool = False
) -> Ledger:
    """Open the ledger of a search, or begin one.

    storage: a SQLite file, made with its folder if missing, or any SQLAlchemy URL that Optuna takes.
    study_name: None stands for fingerprint.study_name. discard: begin anew, deleting the study's evaluations.
    Raises StudyRefusedError if the study is of another search (naming what differs) or not of a search at all;
    LedgerError if the storage cannot be opened.
    """
    import optuna

    name = study_name or fingerprint.study_name
    database = open_storage(storage)
    with closing_on_error(database), quiet_optuna(), saying_what_failed(location_of(storage)):
        if discard:
            with contextlib.suppress(KeyError):  # there is nothing to discard
                optuna.delete_study(study_name=name, storage=database)
        directions = directions_of(fingerprint.settings.cost)
        study = optuna.create_study(storage=database, study_name=name, directions=directions, load_if_exists=True)
        ledger = Ledger(study, database, location_of(storage), fingerprint)
        stored = study.user_attrs.get(_FINGERPRINT_KEY)
        has_ours = [direction.name.lower() for direction in study.directions] == directions
        # A process killed right after it made the study left neither fingerprint nor trials: it is ours to continue.
        if stored is None and has_ours and not study.get_trials(deepcopy=False):
            study.set_user_attr(_FINGERPRINT_KEY, fingerprint.as_dict())
        else:
            _refuse_other_search(ledger, stored)
    return ledger


def read_ledger(
    storage: str | Path, study_name: str | None = None, preferred: str | None = None
) -> tuple[dict[str, Any], list[Record]]:
    """Fingerprint (as Fingerprint.as_dict) and evaluations of a search, for reading only.

    study_name: None takes the storage's only study, or `preferred` if it is one of several. Raises NoSearchError if the
    file or the study is missing, LedgerError if it cannot be read or the choice among several studies is missing.
    """
    import optuna

    if is_missing(storage):
        raise NoSearchError(
            f"there is no search in {location_of(storage)}: no such file. Run `slicemamba search` for this fold first"
        )
    database = open_storage(storage, create=False)
    where = location_of(storage)
    with closing_on_error(database), quiet_optuna(), saying_what_failed(where):
        names = [study_name] if study_name else optuna.get_all_study_names(storage=database)
        if not names:
            raise NoSearchError(f"there is no search in {where}. Run `slicemamba search` for this fold first")
        if len(names) > 1 and preferred in names:
            names = [preferred]
        if len(names) > 1:
            raise LedgerError(
                f"{where} has {len(names)} studies ({', '.join(names)}); name one (`slicemamba search ... --study "
                "NAME` makes it the fold's result)"
            )
        try:
            study = optuna.load_study(study_name=names[0], storage=database)
        except KeyError:
            raise NoSearchError(f"{where} has no study '{names[0]}'") from None
        records = records_of(study.get_trials(deepcopy=False))
        fingerprint = study.user_attrs.get(_FINGERPRINT_KEY, {})
    database.engine.dispose()
    return fingerprint, [records[key] for key in sorted(records)]


def _refuse_other_search(ledger: Ledger, stored: Mapping[str, Any] | None) -> None:
    study = f"study '{ledger.study_name}' in {ledger.location}"
    remedy = _REMEDY.format(n=len(ledger.records()))
    if stored is None:
        raise StudyRefusedError(f"{study} was not made by a slicing search. {remedy}")
    differences = ledger.fingerprint.differences(stored)
    if differences:
        raise StudyRefusedError(f"{study} was made with {'; with '.join(differences)}. {remedy}")
