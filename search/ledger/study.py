"""A search's study in an Optuna storage: the copy of its log, or all that an older version kept of it.

Everything here goes through Optuna's public interface.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nnunetv2_slicemamba.search.ledger.evaluation_log import EvaluationLog, LogReader
from nnunetv2_slicemamba.search.ledger.storage import (
    PATIENCE_AT_START,
    LedgerError,
    StorageAwayError,
    is_missing,
    location_of,
    opened,
    persistently,
)
from nnunetv2_slicemamba.search.ledger.trials import directions_of, records_of, trial_of
from nnunetv2_slicemamba.search.objectives import stored_cost
from nnunetv2_slicemamba.search.records import Record

# the study's attribute that says of which search it is
_FINGERPRINT = "slicing_search"
# how long the process beside a search that just ended may be at it
COPY_SECONDS = 60.0


class StudyRefusedError(ValueError):
    """The study holds another search's evaluations."""


@dataclass(frozen=True)
class StoredStudy:
    """A study as a storage has it.

    fingerprint: of the search, as Fingerprint.as_dict gives it; None if no search made the study. records: its
    evaluations by (generation, index). is_untouched: True if a process was killed right after it had made the study,
    which so is anybody's to continue.
    """

    fingerprint: Mapping[str, Any] | None
    records: dict[tuple[int, int], Record]
    is_untouched: bool


def read_study(storage: str | Path, name: str, create: bool = False) -> StoredStudy | None:
    """A study with all its evaluations; None if there is none. Raises LedgerError if the storage cannot be read.

    create: whether a database without any study is made ready for one, and not an error.
    """
    if is_missing(storage):
        return None
    # Optuna takes as long to import as the rest of the search, and a training needs none of it
    import optuna

    def read() -> StoredStudy | None:
        with opened(storage, create) as database:
            try:
                return _stored(optuna.load_study(study_name=name, storage=database))
            except KeyError:
                return None

    return persistently(read, PATIENCE_AT_START)


def study_names(storage: str | Path) -> list[str]:
    """The studies of a storage. Raises LedgerError if it cannot be read."""
    if is_missing(storage):
        return []
    import optuna

    def read() -> list[str]:
        with opened(storage, create=False) as database:
            return optuna.get_all_study_names(storage=database)

    return persistently(read, PATIENCE_AT_START)


def delete_study(storage: str | Path, name: str) -> None:
    """Deletes a study if it is there. Raises LedgerError if the storage cannot be written."""
    if is_missing(storage):
        return
    import optuna

    def delete() -> None:
        with opened(storage) as database, contextlib.suppress(KeyError):
            optuna.delete_study(study_name=name, storage=database)

    persistently(delete, PATIENCE_AT_START)


@contextlib.contextmanager
def only_copier(log: EvaluationLog, timeout: float = COPY_SECONDS) -> Iterator[None]:
    """While the block runs, no other process copies the log into its study; a killed one holds up nobody.

    timeout: seconds to wait for one that does, after which LedgerError is raised; -1 for ever.
    """
    try:
        log.folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(log.folder / f"{log.search}.lock").acquire(timeout)
    except Timeout:
        raise LedgerError(
            f"another process copies the search in {log.folder} into its study. End that one, or wait for it"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise LedgerError(
            f"{log.folder} cannot be locked ({error}), so its evaluations cannot be copied into their study. Is the "
            "folder writable, and does its file system know locks? All evaluations are kept"
        ) from error
    with held:
        yield


def copy_log(
    log: EvaluationLog,
    storage: str | Path,
    is_over: Callable[[], bool] = lambda: True,
    timeout: float = COPY_SECONDS,
    patience: float = 0.0,
    say: Callable[[str], None] = lambda text: None,
) -> int:
    """Adds to a search's study all evaluations of its log that the study lacks; makes study and storage if missing.

    is_over: asked before the log is read again for what was added meanwhile; once it is true, the log is read a last
    time. timeout: see `only_copier`. patience: seconds to wait for a server that is away, each time it is; say: is told
    of the waits. Returns the number of evaluations added. Raises StudyRefusedError if the study is
    not this search's, LedgerError if log or storage cannot be used.
    """
    added = 0
    with only_copier(log, timeout):

        def copy() -> None:
            nonlocal added
            for _ in _copies(log, storage, is_over):
                added += 1

        while True:
            before = added
            try:
                persistently(copy, patience, say)
                return added
            except StorageAwayError:
                if added == before:  # it has been away all the time
                    raise


def _copies(log: EvaluationLog, storage: str | Path, is_over: Callable[[], bool]) -> Iterator[Record]:
    """Adds what a study lacks, and gives each evaluation once it is there; see copy_log."""
    import optuna

    header = log.header()
    fingerprint = header["fingerprint"]
    directions = directions_of(stored_cost(fingerprint.get("settings", {})))
    n_candidates_per_block = (len(fingerprint["candidates"]),) * int(fingerprint["n_blocks"])
    reader = LogReader(log)
    with opened(storage) as database:
        study = optuna.create_study(
            storage=database, study_name=header["study"], directions=directions, load_if_exists=True
        )
        stored = _stored(study)
        if stored.is_untouched and [direction.name.lower() for direction in study.directions] == directions:
            study.set_user_attr(_FINGERPRINT, fingerprint)
        elif stored.fingerprint != fingerprint:
            raise StudyRefusedError(
                f"study '{header['study']}' in {location_of(storage)} is not of the search in {log.folder}. Give the "
                "search another study (--study NAME), or start anew (--discard)"
            )
        known = set(stored.records)
        while True:
            last = is_over()
            for record in reader.new():
                place = (record.generation, record.index)
                if place not in known:
                    study.add_trial(trial_of(record, n_candidates_per_block, len(directions) > 1))
                    known.add(place)
                    yield record
            if last:
                return


def _stored(study: Any) -> StoredStudy:
    trials, fingerprint = study.get_trials(deepcopy=False), study.user_attrs.get(_FINGERPRINT)
    return StoredStudy(fingerprint, records_of(trials), fingerprint is None and not trials)
