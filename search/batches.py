"""When does an evaluation enter the ledger? At once, or together with others where a journal has it until then."""

from __future__ import annotations

import time
from dataclasses import replace
from types import TracebackType

from .journal import JOURNAL_FOLDER
from .ledger import Ledger
from .records import Record, plain
from .storage import LedgerError

# A transaction takes longer than a GPU needs for an evaluation, and hardly longer for twenty.
WRITE_SECONDS = 0.5


class Batches:
    """Adds records to a ledger; a context manager, which leaves none of them out, whatever ends it.

    journaled: whether a journal has them already, so that they may wait for one that comes WRITE_SECONDS after the last
    writing; else each is added at once.
    """

    def __init__(self, ledger: Ledger, journaled: bool) -> None:
        self._ledger, self._journaled = ledger, journaled
        self._waiting: list[Record] = []
        self._due = time.monotonic() + WRITE_SECONDS

    def add(self, record: Record) -> Record:
        """Returns the record as it will be read again. Raises as Ledger.add does, of this one or one before."""
        self._waiting.append(record)
        if not self._journaled or time.monotonic() >= self._due:
            self._write()
        return replace(record, details=plain(record.details))

    def _write(self) -> None:
        # what could not be written is not tried again at the end
        records, self._waiting = self._waiting, []
        if not records:
            return
        try:
            self._ledger.add(*records)
        except LedgerError as error:
            if not self._journaled:
                raise
            raise LedgerError(
                f"{error}. What was not written is kept in '{JOURNAL_FOLDER}' in the search's folder; the same command "
                "writes it"
            ) from error
        self._due = time.monotonic() + WRITE_SECONDS

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._write()
