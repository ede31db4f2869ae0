"""How does an evaluation outlive the process that made it, before the ledger has it?

Each process of a search appends what it finished to a file of its own before it gives or sends it to the one that
writes the ledger. The next start reads these files: whichever process died, at whatever moment, nothing finished is
evaluated again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.json_files import plain_json
from nnunetv2_slicemamba.search.fingerprint import Fingerprint
from nnunetv2_slicemamba.search.ledger.storage import LedgerError, advice
from nnunetv2_slicemamba.search.records import Evaluation
from nnunetv2_slicemamba.search.workers.base import Done, Task, Workers
from nnunetv2_slicemamba.slicing.candidates import Architecture

JOURNAL_FOLDER = "unsaved"


class Journal:
    """Finished evaluations of one search, as lines of JSON in a folder that all its processes see.

    folder: of the search. search: which, as search_name gives it; lines of another search are not found.
    """

    def __init__(self, folder: Path, search: str) -> None:
        self.search = search
        self._folder = folder / JOURNAL_FOLDER
        self._file: int | None = None

    def append(self, task: Task, done: Done) -> None:
        """Keeps a finished evaluation; LedgerError if it cannot be written."""
        entry = {"generation": task.generation, "index": task.index, "architecture": task.architecture}
        # what a full disk or a kill cut off before must not spoil this line
        line = ("\n" + json.dumps({**entry, **as_json(done)}) + "\n").encode()
        try:
            if self._file is not None and os.fstat(self._file).st_nlink == 0:  # another process's search ended
                os.close(self._file)
                self._file = None
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                name = f"{self.search}.{socket.gethostname()}.{os.getpid()}.jsonl"
                self._file = os.open(self._folder / name, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise LedgerError(
                f"the evaluation of {task.architecture} could not be written to {self._folder} ({error}). What was "
                f"evaluated before is kept. {advice(error)}"
            ) from error

    def read(self) -> dict[tuple[int, int], tuple[Architecture, Done]]:
        """What all processes left, by (generation, index); lines that a process was killed in are left out."""
        found = {}
        for file in sorted(self._folder.glob(f"{self.search}.*.jsonl")):
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    key = (int(entry["generation"]), int(entry["index"]))
                    found[key] = (tuple(entry["architecture"]), done_of(entry))
                except (ValueError, TypeError, KeyError):
                    continue
        return found

    def clear(self) -> None:
        """Deletes the lines of all processes: the ledger has them."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        for file in self._folder.glob(f"{self.search}.*.jsonl"):
            file.unlink(missing_ok=True)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()


class Journaled(Workers):
    """Other workers, of this process, with a journal of what they finish."""

    journaled = True

    def __init__(self, workers: Workers, journal: Journal) -> None:
        self._workers, self._journal = workers, journal

    def __call__(self, tasks: Sequence[Task], go_on: Callable[[], bool]) -> Iterator[Done]:
        by_index = {task.index: task for task in tasks}
        for done in self._workers(tasks, go_on):
            self._journal.append(by_index[done.index], done)
            yield done


class Recovering(Workers):
    """Other workers, which need not evaluate what a journal has."""

    def __init__(self, workers: Workers, journal: Journal) -> None:
        self._workers = workers
        self._left_behind = journal.read()
        self.journaled = workers.journaled

    def __call__(self, tasks: Sequence[Task], go_on: Callable[[], bool]) -> Iterator[Done]:
        missing = []
        for task in tasks:
            architecture, done = self._left_behind.get((task.generation, task.index), (None, None))
            if done is not None and architecture == task.architecture:
                yield replace(done, recovered=True)
            else:
                missing.append(task)
        yield from self._workers(missing, go_on)


def search_name(fingerprint: Fingerprint, study: str, location: str) -> str:
    """A name that is the same for the same search in the same ledger, and for no other."""
    content = json.dumps([fingerprint.as_dict(), study, location], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def as_json(done: Done) -> dict[str, Any]:
    """A finished evaluation as values that JSON keeps; an undefined fitness is null."""
    return {
        "index": done.index,
        "fitness": plain_json(done.evaluation.fitness),
        "details": plain_json(done.evaluation.details),
        "seconds": done.seconds,
        **({} if done.evaluation.cost is None else {"cost": done.evaluation.cost}),
    }


def done_of(entry: dict[str, Any]) -> Done:
    """The inverse of as_json. Raises KeyError, TypeError or ValueError for anything else."""
    fitness = entry["fitness"]
    evaluation = Evaluation(float("nan") if fitness is None else fitness, entry["details"], entry.get("cost"))
    return Done(int(entry["index"]), evaluation, float(entry["seconds"]))
