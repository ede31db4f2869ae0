"""Evaluations that a journal has wait for one another before they enter the ledger; none of them is left out."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest
from killable_search import SETTINGS, evaluate, fingerprint

from nnunetv2_slicemamba.search import LedgerError, Record, batches, open_ledger, read_ledger, run_search, storage
from nnunetv2_slicemamba.search.batches import Batches
from nnunetv2_slicemamba.search.journal import Journal, Journaled, Recovering
from nnunetv2_slicemamba.search.workers import InTurn


def record(index: int) -> Record:
    return Record((0, 0, 0, 0, index % 4), index / 8, 0, index, "random", 0.1, {"values": (1, 2)})


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    with open_ledger(tmp_path / "study.db", fingerprint()) as opened:
        added, add = [], opened.add
        monkeypatch.setattr(opened, "add", lambda *records: (added.append(len(records)), add(*records))[1])
        opened.added = added
        yield opened


def test_what_a_journal_has_is_written_together_and_what_none_has_at_once(ledger, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with Batches(ledger, journaled=True) as together:
        assert together.add(record(0)) == replace(record(0), details={"values": [1, 2]})
        together.add(record(1))
        assert ledger.added == []
        now[0] += batches.WRITE_SECONDS
        together.add(record(2))
        assert ledger.added == [3]
        together.add(record(3))
    assert ledger.added == [3, 1]
    with Batches(ledger, journaled=False) as one_by_one:
        one_by_one.add(record(4))
        assert ledger.added == [3, 1, 1]
        one_by_one.add(record(5))
    assert ledger.added == [3, 1, 1, 1]
    assert [r.index for r in ledger.records()] == list(range(6))


def test_whatever_ends_a_generation_what_was_evaluated_is_written(ledger):
    with pytest.raises(KeyboardInterrupt), Batches(ledger, journaled=True) as together:  # noqa: PT012
        together.add(record(0))
        together.add(record(1))
        raise KeyboardInterrupt
    assert ledger.added == [2]
    assert len(ledger.records()) == 2


def test_a_journaled_search_ends_as_one_that_writes_at_once_with_fewer_transactions(ledger, tmp_path):
    result = run_search(Journaled(InTurn(evaluate), Journal(tmp_path, "a")), SETTINGS, ledger, progress=False)
    assert sum(ledger.added) == SETTINGS.evaluations
    assert len(ledger.added) == SETTINGS.generations + 1, "one transaction for each quick generation"
    with open_ledger(tmp_path / "other.db", fingerprint()) as other:
        at_once = run_search(evaluate, SETTINGS, other, progress=False)
    assert [(r.architecture, r.details) for r in result.records] == [
        (r.architecture, r.details) for r in at_once.records
    ]
    assert result.best.architecture == at_once.best.architecture


def test_what_a_locked_ledger_did_not_take_is_in_the_journal_and_is_not_evaluated_again(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "LOCK_SECONDS", 0.01)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    study, evaluated = tmp_path / "study.db", []

    def noted(architecture):
        evaluated.append(architecture)
        return evaluate(architecture)

    def search() -> None:
        journal = Journal(tmp_path, "a")
        workers = Recovering(Journaled(InTurn(noted), journal), journal)
        with open_ledger(study, fingerprint()) as ledger:
            if not evaluated:
                holder.execute("BEGIN EXCLUSIVE")
            run_search(workers, SETTINGS, ledger, progress=False)

    holder = sqlite3.connect(study, isolation_level=None)
    message = r"6 evaluations, from .* on, could not be written .*locked\).* The 0 evaluations before them are kept .*"
    with pytest.raises(LedgerError, match=message + "What was not written is kept in 'unsaved'.*the same command"):
        search()
    holder.close()
    assert len(evaluated) == SETTINGS.population
    search()
    assert len(evaluated) == len(set(evaluated)) == SETTINGS.evaluations == len(read_ledger(study)[1])
