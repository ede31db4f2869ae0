"""Evaluations that a journal has wait for one another before they enter the ledger; none of them is left out."""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from dataclasses import replace

import pytest

from nnunetv2_slicemamba.search import LedgerError, Record, open_ledger, read_ledger, run_search
from nnunetv2_slicemamba.search.ledger.batches import Batches
from nnunetv2_slicemamba.search.ledger.journal import Journal, Journaled, Recovering
from nnunetv2_slicemamba.search.ledger.ledger import batches, storage
from nnunetv2_slicemamba.search.workers.base import InTurn
from tests.search.killable_search import SETTINGS, evaluate, fingerprint


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
        give_up = time.perf_counter() + 20
        while ledger.added != [3] and time.perf_counter() < give_up:  # another thread writes
            time.sleep(0.001)
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


def test_threads_take_turns_more_often_only_while_one_writes(ledger):
    usual = sys.getswitchinterval()
    with Batches(ledger, journaled=True):
        assert sys.getswitchinterval() < usual
    assert sys.getswitchinterval() == usual
    with Batches(ledger, journaled=False):
        assert sys.getswitchinterval() == usual


def test_evaluations_that_come_while_others_are_written_wait_and_are_written_once(ledger, monkeypatch):
    monkeypatch.setattr(batches, "WRITE_SECONDS", 0.0)
    began, may_end, add = threading.Event(), threading.Event(), ledger.add

    def slowly(*records):
        began.set()
        assert may_end.wait(20)
        return add(*records)

    monkeypatch.setattr(ledger, "add", slowly)
    with Batches(ledger, journaled=True) as together:
        for index in range(5):
            together.add(record(index))
            assert began.wait(20)
        assert ledger.added == [], "the first is still being written"
        may_end.set()
    assert ledger.added[0] == 1
    assert sum(ledger.added) == 5
    assert [r.index for r in ledger.records()] == list(range(5))


def test_what_could_not_be_written_in_the_background_is_raised_and_not_tried_again(ledger, monkeypatch):
    monkeypatch.setattr(batches, "WRITE_SECONDS", 0.0)
    tried = []

    def full(*records):
        tried.append([one.index for one in records])
        raise LedgerError("the disk is full")

    monkeypatch.setattr(ledger, "add", full)
    with pytest.raises(LedgerError, match="disk is full. What was not written is kept"):  # noqa: SIM117
        with Batches(ledger, journaled=True) as together:
            together.add(record(0))
    assert tried == [[0]]


def test_after_a_failed_writing_what_gathered_meanwhile_is_left_to_the_journal(ledger, monkeypatch):
    monkeypatch.setattr(batches, "WRITE_SECONDS", 0.0)
    began, may_fail, tried = threading.Event(), threading.Event(), []

    def fails(*records):
        tried.append(len(records))
        began.set()
        assert may_fail.wait(20)
        raise LedgerError("the database is locked")

    monkeypatch.setattr(ledger, "add", fails)
    together = Batches(ledger, journaled=True)
    usual = sys.getswitchinterval()
    with pytest.raises(LedgerError, match="locked"), together:  # noqa: PT012
        together.add(record(0))
        assert began.wait(20)
        together.add(record(1))
        may_fail.set()
        together._written.exception(20)
        together.add(record(2))
    assert tried == [1]
    assert sys.getswitchinterval() == usual


def test_a_journaled_search_ends_as_one_that_writes_at_once_with_fewer_transactions(ledger, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "WRITE_SECONDS", 1000.0)
    result = run_search(Journaled(InTurn(evaluate), Journal(tmp_path, "a")), SETTINGS, ledger, progress=False)
    assert sum(ledger.added) == SETTINGS.evaluations
    assert len(ledger.added) == 1, "nothing waits for a generation's end"
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
    message = r"30 evaluations, from .* on, could not be written .*locked\).* The 0 evaluations before them are kept .*"
    with pytest.raises(LedgerError, match=message + "What was not written is kept in 'unsaved'.*the same command"):
        search()
    holder.close()
    assert len(evaluated) == SETTINGS.evaluations, "the search went on meanwhile"
    search()
    assert len(evaluated) == len(set(evaluated)) == SETTINGS.evaluations == len(read_ledger(study)[1])
