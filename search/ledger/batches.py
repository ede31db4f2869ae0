"""When does an evaluation enter the ledger? At once, or together with others where a journal has it until then."""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType

from nnunetv2_slicemamba.common.json_files import plain_json
from nnunetv2_slicemamba.search.ledger.journal import JOURNAL_FOLDER
from nnunetv2_slicemamba.search.ledger.ledger import Ledger
from nnunetv2_slicemamba.search.ledger.storage import LedgerError
from nnunetv2_slicemamba.search.records import Record

# A transaction takes longer than a GPU needs for an evaluation, and hardly longer for twenty.
WRITE_SECONDS = 0.5
# Python's 5 ms would keep a GPU waiting for the next kernels while rows are made.
SWITCH_SECONDS = 0.0005


class Batches:
    """Adds records to a ledger; a context manager, which leaves none of them out unless writing fails.

    journaled: whether a journal has them already, so that they may wait for one that comes WRITE_SECONDS after the last
    writing, and are written in a thread of their own while the next ones are evaluated; else each is added at once.
    Nobody else may use the ledger inside.
    """

    def __init__(self, ledger: Ledger, journaled: bool) -> None:
        self._ledger, self._journaled = ledger, journaled
        self._waiting: list[Record] = []
        self._due = time.monotonic() + WRITE_SECONDS
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._written: Future[None] | None = None
        self._usual_switch = sys.getswitchinterval()

    def add(self, record: Record) -> Record:
        """Returns the record as it will be read again. Raises as Ledger.add does, of this one or one before."""
        self._waiting.append(record)
        if not self._journaled:
            self._write_all()
        elif time.monotonic() >= self._due and (self._written is None or self._written.done()):
            self._finish_writing()
            self._written = self._thread.submit(self._write, self._take())
            self._due = time.monotonic() + WRITE_SECONDS
        return replace(record, details=plain_json(record.details))

    def _take(self) -> list[Record]:
        records, self._waiting = self._waiting, []
        return records

    def _write_all(self) -> None:
        self._finish_writing()
        self._write(self._take())

    def _finish_writing(self) -> None:
        """Waits for what is being written; raises what went wrong with it, and then writes nothing more."""
        written, self._written = self._written, None
        if written is None:
            return
        try:
            written.result()
        except Exception:
            self._waiting = []
            raise

    def _write(self, records: list[Record]) -> None:
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

    def __enter__(self) -> Batches:
        if self._journaled:
            sys.setswitchinterval(min(SWITCH_SECONDS, self._usual_switch))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self._write_all()
        finally:
            sys.setswitchinterval(self._usual_switch)
            self._thread.shutdown()
