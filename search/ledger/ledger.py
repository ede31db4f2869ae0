"""The ledger: every evaluation of a search, kept as it is made, so that nothing finished is ever lost."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from nnunetv2_slicemamba.common.json_files import plain_json
from nnunetv2_slicemamba.common.verbosity import SliceMambaWarning
from nnunetv2_slicemamba.search.fingerprint import Fingerprint
from nnunetv2_slicemamba.search.ledger.evaluation_log import EvaluationLog, log_folder, log_name, logs_in, records_in
from nnunetv2_slicemamba.search.ledger.old_journal import left_over_files, read_left_over
from nnunetv2_slicemamba.search.ledger.storage import LedgerError, NoSearchError, is_missing, location_of
from nnunetv2_slicemamba.search.ledger.study import (
    COPY_SECONDS,
    StoredStudy,
    StudyRefusedError,
    copy_log,
    delete_study,
    only_copier,
    read_study,
    study_names,
)
from nnunetv2_slicemamba.search.ledger.trials import check_record
from nnunetv2_slicemamba.search.records import Record, Task

_REMEDY = "Give this search another study (--study NAME), or start anew (--discard deletes the {n} evaluations in it)"


class Ledger:
    """The evaluations of one search. Open one with open_ledger; usable as a context manager.

    fingerprint: of the search. study_name: name of its study. log: its files. location: their folder, for people to
    read. storage: where the study belongs, their copy for Optuna.
    """

    def __init__(self, log: EvaluationLog, fingerprint: Fingerprint, study_name: str, storage: str | Path) -> None:
        self.fingerprint, self.study_name, self.log, self.storage = fingerprint, study_name, log, storage
        self.location = str(log.folder)
        log.open()
        found = _kept_in(log, study_name, storage)
        self._generations: dict[int, dict[int, Record]] = {}
        for (generation, index), record in found.items():
            self._generations.setdefault(generation, {})[index] = record
        self._left_over = read_left_over(_left_over_of(log, fingerprint, study_name, storage))

    def records(self) -> list[Record]:
        """Every evaluation, ordered by (generation, index), whatever the order in which they were added."""
        return [record for generation in sorted(self._generations) for record in self.generation(generation)]

    def generation(self, number: int) -> list[Record]:
        """The evaluations of one generation, by their index."""
        records = self._generations.get(number, {})
        return [records[index] for index in sorted(records)]

    def add(self, record: Record, *, kept: bool = False) -> Record:
        """Keeps an evaluation, for good once this returns. Returns it as it will be read again.

        kept: whether the process that made it has appended it to the log already. Raises ValueError if its place is
        taken or its details cannot be kept as JSON; LedgerError if the log cannot be written or somebody else writes
        to it.
        """
        of_generation = self._generations.setdefault(record.generation, {})
        if record.index in of_generation:
            raise ValueError(
                f"generation {record.generation} already has an evaluation number {record.index} in {self.location}"
            )
        added = replace(record, details=plain_json(record.details))
        check_record(added, self.fingerprint.n_candidates_per_block)
        if not kept:
            self.log.append(added)
        of_generation[record.index] = added
        return added

    def recover(self, task: Task) -> Record | None:
        """The task's evaluation by an older version that was killed before it had it in its study; now it is kept."""
        done = self._left_over.get((task.generation, task.index))
        if done is None or done.task.architecture != task.architecture:
            return None
        return self.add(Record.of(replace(done, task=task)))

    def export(self) -> int:
        """Adds to the search's study in Optuna's storage what it lacks; the number of evaluations added.

        Raises StudyRefusedError if it is another search's, LedgerError if the storage cannot be written.
        """
        return copy_log(self.log, self.storage)

    def close(self) -> None:
        """Let go of the files; records() still answers."""
        self.log.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def open_ledger(
    storage: str | Path,
    fingerprint: Fingerprint,
    study_name: str | None = None,
    discard: bool = False,
    folder: Path | None = None,
) -> Ledger:
    """Open the ledger of a search, or begin one, with what an older version kept of it in its study.

    storage: where the search's study belongs: a SQLite file, or any SQLAlchemy URL that Optuna takes. study_name: None
    stands for fingerprint.study_name. discard: begin anew, deleting evaluations and study. folder: where the
    evaluations are kept, in a folder of their own; None stands for the SQLite file's.
    Raises StudyRefusedError if the study is of another search (naming what differs) or not of a search at all;
    LedgerError if the evaluations or, where there are none yet, the storage cannot be read.
    """
    name = study_name or fingerprint.study_name
    logs = log_folder(storage, folder)
    if logs is None:
        raise LedgerError(
            f"evaluations cannot be kept in {location_of(storage)}, only their copy; give a folder for them"
        )
    log = EvaluationLog(logs, log_name(name))
    if discard:
        _discard(log, storage, name, fingerprint)
    if log.file.is_file():
        header = log.header()
        _refuse_other_search(fingerprint, header["fingerprint"], name, str(log.folder), lambda: len(records_in(log)[0]))
    else:
        stored = read_study(storage, name, create=True)
        if stored is None or stored.is_untouched:
            log.begin({"study": name, "fingerprint": fingerprint.as_dict()}, [])
        else:
            n = len(stored.records)
            _refuse_other_search(fingerprint, stored.fingerprint, name, location_of(storage), lambda: n)
            log.begin({"study": name, "fingerprint": stored.fingerprint}, stored.records.values())
    return Ledger(log, fingerprint, name, storage)


def read_ledger(
    storage: str | Path, study_name: str | None = None, preferred: str | None = None, folder: Path | None = None
) -> tuple[dict[str, Any], list[Record]]:
    """Fingerprint (as Fingerprint.as_dict) and evaluations of a search, for reading only.

    storage, folder: as in open_ledger; a study that has no evaluations of its own kept there is read itself.
    study_name: None takes the only one, or `preferred` if it is one of several. Raises NoSearchError if there is none
    (of that name), LedgerError if it cannot be read or the choice among several is missing.
    """
    log, stored = _find(storage, study_name, preferred, folder)
    if log is not None:
        fingerprint = log.header()["fingerprint"]
        records = _kept_in(log, log.header()["study"], storage)
    else:
        fingerprint, records = dict(stored.fingerprint or {}), stored.records
    return fingerprint, [records[place] for place in sorted(records)]


def export_study(
    storage: str | Path,
    study_name: str | None = None,
    folder: Path | None = None,
    timeout: float = COPY_SECONDS,
) -> int:
    """`Ledger.export` of the search that read_ledger reads; 0 if its study is all that there is.

    timeout: seconds to wait for another process that copies it.
    """
    log, _ = _find(storage, study_name, None, folder)
    return 0 if log is None else copy_log(log, storage, timeout=timeout)


def has_ledger(storage: str | Path) -> bool:
    """True if there is anything that read_ledger could read; a server is not asked."""
    logs = log_folder(storage)
    return not is_missing(storage) or (logs is not None and any(logs.glob("*.jsonl")))


def _kept_in(log: EvaluationLog, study_name: str, storage: str | Path) -> dict[tuple[int, int], Record]:
    """The evaluations in a log. Its damaged lines are left out with a warning; what they held may be in the study."""
    records, damaged = records_in(log)
    if not damaged:
        return records
    warnings.warn(
        f"left out of {log.folder}, because no evaluation can be read there: {'; '.join(damaged)}. A search evaluates "
        "again what its study does not have either",
        SliceMambaWarning,
        stacklevel=3,
    )
    # evaluated again, what a damaged line held may come out a little different: a measured cost does
    return {**_copied(log, study_name, storage), **records}


def _copied(log: EvaluationLog, study_name: str, storage: str | Path) -> dict[tuple[int, int], Record]:
    """The evaluations in a search's study, if it can be read."""
    with contextlib.suppress(LedgerError):
        stored = read_study(storage, study_name)
        if stored is not None and stored.fingerprint == log.header()["fingerprint"]:
            return stored.records
    return {}


def _find(
    storage: str | Path, study_name: str | None, preferred: str | None, folder: Path | None
) -> tuple[EvaluationLog | None, StoredStudy]:
    """The log of the search that read_ledger reads, or what an older version kept of it."""
    own, nothing = log_folder(storage, folder), StoredStudy(None, {}, True)
    where = location_of(storage)
    for name in filter(None, (study_name, preferred)):
        if own is not None and (log := EvaluationLog(own, log_name(name))).file.is_file():
            return log, nothing
        if (stored := read_study(storage, name)) is not None:
            return None, stored
    if study_name:
        raise NoSearchError(f"{where} has no study '{study_name}'")
    logs = {} if own is None else logs_in(own)
    names = list(logs) or study_names(storage)  # a search that was continued counts before older studies beside it
    if not names:
        raise NoSearchError(f"there is no search in {where}. Run `slicemamba search` for this fold first")
    if len(names) > 1:
        raise LedgerError(
            f"{where} has {len(names)} studies ({', '.join(names)}); name one (`slicemamba search ... --study NAME` "
            "makes it the fold's result)"
        )
    return logs.get(names[0]), (nothing if logs else read_study(storage, names[0]) or nothing)


def _discard(log: EvaluationLog, storage: str | Path, name: str, fingerprint: Fingerprint) -> None:
    # a process that still copies would make the study again
    with only_copier(log):
        delete_study(storage, name)
        log.delete()
        for file in _left_over_of(log, fingerprint, name, storage):
            file.unlink(missing_ok=True)


def _left_over_of(log: EvaluationLog, fingerprint: Fingerprint, name: str, storage: str | Path) -> list[Path]:
    return left_over_files(log.folder.parent, fingerprint, name, location_of(storage))


def _refuse_other_search(
    ours: Fingerprint, stored: Mapping[str, Any] | None, name: str, location: str, count: Callable[[], int]
) -> None:
    differences = [] if stored is None else ours.differences(stored)
    if stored is not None and not differences:
        return
    made = "was not made by a slicing search" if stored is None else f"was made with {'; with '.join(differences)}"
    raise StudyRefusedError(f"study '{name}' in {location} {made}. {_REMEDY.format(n=count())}")
