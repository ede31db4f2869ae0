"""A server that is away is asked again with growing waits; what it refuses is told at once."""

from __future__ import annotations

import sqlite3

import pytest
from sqlalchemy.exc import OperationalError, ProgrammingError

from nnunetv2_slicemamba.search.ledger import storage
from nnunetv2_slicemamba.search.ledger.storage import LedgerError, StorageAwayError, opened, persistently


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waits.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(storage, "time", made)
    return made


def test_it_is_tried_again_with_growing_waits_until_it_works(clock: Clock) -> None:
    said: list[str] = []

    def work() -> float:
        if clock.now < 100:
            raise StorageAwayError("the server is away")
        return clock.now

    assert persistently(work, 300, said.append) == clock.now >= 100
    assert clock.waits[:7] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert set(said) == {"the server is away. Tried again for 300 s"}


def test_patience_ends(clock: Clock) -> None:
    def away() -> None:
        raise StorageAwayError("away")

    with pytest.raises(StorageAwayError):
        persistently(away, 10)
    assert sum(clock.waits) == pytest.approx(10)


def test_other_errors_are_not_tried_again(clock: Clock) -> None:
    def refused() -> None:
        raise LedgerError("no such database")

    with pytest.raises(LedgerError, match="no such database"):
        persistently(refused, 300)
    assert clock.waits == []


@pytest.mark.parametrize(
    ("error", "is_away"),
    [
        (OperationalError("SELECT", {}, Exception("connection failed: Connection refused")), True),
        (OperationalError("SELECT", {}, Exception("FATAL: the database system is starting up")), True),
        (OperationalError("SELECT", {}, Exception("FATAL: terminating connection due to administrator")), True),
        (OperationalError("SELECT", {}, Exception("FATAL: password authentication failed")), False),
        (OperationalError("SELECT", {}, Exception("FATAL: database none does not exist")), False),
        (OperationalError("SELECT", {}, Exception("(1045) Access denied for user")), False),
        (OperationalError("SELECT", {}, sqlite3.OperationalError("database is locked")), False),
        (ProgrammingError("SELECT", {}, Exception("relation does not exist")), False),
    ],
    ids=lambda value: str(value)[:70] if isinstance(value, Exception) else "",
)
def test_what_passes_is_told_from_what_does_not(error: Exception, is_away: bool, tmp_path) -> None:
    with pytest.raises(LedgerError) as told, opened(tmp_path / "study.db"):
        raise error
    assert isinstance(told.value, StorageAwayError) is is_away
