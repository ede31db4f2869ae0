"""The study is a whole copy of the log for Optuna's tools, whoever is killed while it is made."""

from __future__ import annotations

import contextlib
import io
import math
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from rich.console import Console
from sqlalchemy.engine import make_url

from nnunetv2_slicemamba.search import LedgerError, Record, StudyRefusedError, open_ledger, read_ledger
from nnunetv2_slicemamba.search.ledger import storage, study_export
from nnunetv2_slicemamba.search.ledger.study import copy_log, only_copier, read_study
from nnunetv2_slicemamba.search.ledger.study_export import StudyExport
from tests.search.killable_search import fingerprint

NAME = fingerprint().study_name


def record(index=0, fitness=0.5, generation=0, **details):
    return Record((0, 1, 2, 3, index % 4), fitness, generation, index, "random", 1.5, details)


@pytest.fixture
def study(tmp_path) -> Path:
    return tmp_path / "slicing_search" / "study.db"


@pytest.fixture
def patient(monkeypatch):
    """However busy the machine is, the process that copies is waited for."""
    monkeypatch.setattr(study_export, "WAIT_SECONDS", 120.0)
    monkeypatch.setattr(study_export, "NICENESS", 0)


def trials_in(study: Path, name: str = NAME) -> list[optuna.trial.FrozenTrial]:
    """As Optuna's dashboard reads them."""
    return optuna.load_study(study_name=name, storage=f"sqlite:///{study}").trials


def test_a_trial_is_one_that_optunas_tools_understand(study):
    with open_ledger(study, fingerprint()) as ledger:
        ledger.add(record(3, 0.75, generation=2, dice=0.5))
        assert not study.exists()
        assert ledger.export() == 1
    (trial,) = trials_in(study)
    assert trial.state == optuna.trial.TrialState.COMPLETE
    assert trial.value == 0.75
    assert trial.params == {"block_00": 0, "block_01": 1, "block_02": 2, "block_03": 3, "block_04": 3}
    assert trial.distributions["block_04"] == optuna.distributions.CategoricalDistribution((0, 1, 2, 3))
    assert trial.user_attrs == {
        "architecture": [0, 1, 2, 3, 3],
        "generation": 2,
        "index": 3,
        "origin": "random",
        "seconds": 1.5,
        "dice": 0.5,
    }
    assert trial.duration is not None
    assert trial.duration.total_seconds() == pytest.approx(1.5)
    study_read = optuna.load_study(study_name=NAME, storage=f"sqlite:///{study}")
    assert study_read.direction == optuna.study.StudyDirection.MAXIMIZE


def test_an_undefined_fitness_is_a_failed_trial(study):
    with open_ledger(study, fingerprint()) as ledger:
        ledger.add(record(0, math.nan, dice_per_class=[math.nan, 0.5]))
        ledger.export()
    (trial,) = trials_in(study)
    assert trial.state == optuna.trial.TrialState.FAIL
    assert len(trial.params) == 5


def test_only_what_the_study_lacks_is_added_in_the_order_in_which_it_was_kept(study):
    with open_ledger(study, fingerprint()) as ledger:
        added = [0, 2, 1, 5, 4]
        for turn, index in enumerate(added):
            ledger.add(record(index))
            assert ledger.export() == 1
            assert ledger.export() == 0
            assert [t.number for t in trials_in(study)] == list(range(turn + 1))
    assert [t.user_attrs["index"] for t in trials_in(study)] == added


def test_a_log_is_followed_until_its_search_is_over(study):
    with open_ledger(study, fingerprint()) as ledger:
        seen = []

        def is_over() -> bool:
            """Between two looks at the log: evaluations are made, the last ones before the end is told."""
            seen.append(len(trials_in(study)))
            n = len(ledger.records())
            for index in range(n, n + 2):
                ledger.add(record(index))
            return len(seen) == 3

        assert copy_log(ledger.log, study, is_over) == 6
    assert seen == [0, 2, 4]
    assert len(trials_in(study)) == 6


def test_a_study_that_is_not_of_the_search_gets_nothing(study):
    with open_ledger(study, fingerprint()) as ledger:
        ledger.add(record())
        optuna.create_study(storage=f"sqlite:///{study}", study_name=NAME, direction="minimize")
        with pytest.raises(StudyRefusedError, match=r"study '.*' in .*study.db is not of the search in .*--study NAME"):
            ledger.export()
    assert trials_in(study) == []


def test_trials_that_nobody_searched_disturb_nothing(study):
    with open_ledger(study, fingerprint()) as ledger:
        kept = ledger.add(record())
        ledger.export()
        other = optuna.load_study(study_name=NAME, storage=f"sqlite:///{study}")
        other.add_trial(optuna.trial.create_trial(value=1.0))
        other.ask()  # for ever running
        ledger.add(record(1))
        assert ledger.export() == 1
    assert sorted(read_study(study, NAME).records) == [(0, 0), (0, 1)]
    assert kept == record()


def test_a_locked_study_says_so_and_is_completed_later(study, monkeypatch):
    monkeypatch.setattr(storage, "LOCK_SECONDS", 0.01)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # Optuna waits between its attempts
    with open_ledger(study, fingerprint()) as ledger:
        ledger.add(record(0))
        ledger.export()
        ledger.add(record(1))
        holder = sqlite3.connect(study, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LedgerError, match=r"study.db .*database is locked\).* Another process holds it: end that"):
            ledger.export()
        holder.close()
        assert ledger.export() == 1


def test_a_full_disk_says_so_and_with_room_the_study_is_completed(study, monkeypatch):
    """SQLite's own error, from a file that may not grow."""
    connect, limits = sqlite3.connect, []

    def connect_limited(file, **arguments):
        connection = connect(file, **arguments)
        for limit in limits:
            connection.execute(f"PRAGMA max_page_count = {limit}")
        return connection

    monkeypatch.setattr(storage.sqlite3, "connect", connect_limited)
    with open_ledger(study, fingerprint()) as ledger:
        ledger.add(record(0))
        ledger.export()
        ledger.add(record(1, note="x" * 100_000))
        limits.append(1)  # SQLite takes the present size for a limit that is below it
        with pytest.raises(LedgerError, match=r"\(database or disk is full\).* Make room on the disk"):
            ledger.export()
        limits.clear()
        assert ledger.export() == 1
    assert [t.user_attrs["index"] for t in trials_in(study)] == [0, 1]


def test_a_storage_that_cannot_be_opened_is_named_with_the_remedy(study, tmp_path):
    study.parent.mkdir()
    study.write_text("this is not a database, but long enough to be taken for a broken one" * 20)
    remedy = r"cannot open .*study.db as a study \(file is not a database\).* Move a damaged"
    for opening in (open_ledger, lambda *_: read_ledger(study)):
        with pytest.raises(LedgerError, match=remedy):
            opening(study, fingerprint())
    with pytest.raises(LedgerError, match="cannot open nosuchdatabase://host/x as a study"):
        open_ledger("nosuchdatabase://host/x", fingerprint(), folder=tmp_path)


def test_reading_a_file_without_a_study_changes_nothing(study):
    study.parent.mkdir()
    sqlite3.connect(study).close()
    before = study.read_bytes()
    with pytest.raises(LedgerError):
        read_ledger(study)
    assert study.read_bytes() == before


def test_a_password_is_not_shown():
    url = "postgresql://me:secret@host:5432/db"
    assert make_url(url).password == "secret"
    assert storage.location_of(url) == "postgresql://me:***@host:5432/db"


def test_optuna_is_silent_and_its_verbosity_is_left_as_it_was(study, capfd):
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        with open_ledger(study, fingerprint()) as ledger:
            ledger.add(record())
            ledger.export()
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.set_verbosity(before)
    assert capfd.readouterr() == ("", "")


def test_the_study_grows_beside_the_search_and_is_whole_after_it(study, patient):
    with open_ledger(study, fingerprint()) as ledger:
        with StudyExport(ledger):
            ledger.add(record(0))
            until, there = time.monotonic() + 120, None
            while not there:
                assert time.monotonic() < until
                time.sleep(0.1)
                with contextlib.suppress(LedgerError):  # it is being made
                    there = read_study(study, NAME)
            ledger.add(record(1))
        assert [t.user_attrs["index"] for t in trials_in(study)] == [0, 1]
        assert ledger.export() == 0


def test_two_that_copy_at_once_add_nothing_twice(study, monkeypatch):
    monkeypatch.setattr(study_export, "WAIT_SECONDS", 0.0)  # the first one goes on
    with open_ledger(study, fingerprint()) as ledger:
        for index in range(20):
            ledger.add(record(index))
        with StudyExport(ledger) as export:
            pass
        copy_log(ledger.log, study, timeout=-1)
        assert export._process.wait(120) == 0
        assert sorted(t.user_attrs["index"] for t in trials_in(study)) == list(range(20))
        with only_copier(ledger.log), pytest.raises(LedgerError, match="another process copies the search in"):
            copy_log(ledger.log, study, timeout=0.01)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_copy_that_is_killed_again_and_again_ends_whole_with_each_evaluation_once(study):
    with open_ledger(study, fingerprint()) as ledger:
        for index in range(60):
            ledger.add(record(index))
        for _ in range(4):
            with StudyExport(ledger) as export:
                until = time.monotonic() + 60
                while not study.exists():
                    assert time.monotonic() < until
                    time.sleep(0.01)
                time.sleep(random.uniform(0, 1.5))
                export._process.kill()
        ledger.export()
    trials = trials_in(study)
    assert [t.number for t in trials] == list(range(60)), "a half trial was left"
    assert all(t.state.is_finished() and len(t.params) == 5 for t in trials)
    assert [t.user_attrs["index"] for t in trials] == list(range(60))


def test_what_could_not_be_copied_is_told_and_ends_no_search(study, patient):
    shown = io.StringIO()
    with open_ledger(study, fingerprint()) as ledger:
        study.write_text("no database" * 300)
        with StudyExport(ledger, Console(file=shown, width=1000)):
            ledger.add(record())
        assert "study.db was not completed: cannot open" in shown.getvalue()
        assert "file is not a database" in shown.getvalue()
        assert f"All evaluations are kept in {ledger.location}; the same command completes it" in shown.getvalue()
        study.unlink()
        assert ledger.export() == 1


def test_nobody_can_read_a_password_among_the_running_commands(tmp_path, monkeypatch):
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda call, **named: started.append(call) or popen(call, **named))
    monkeypatch.setattr(study_export, "WAIT_SECONDS", 0.0)
    with open_ledger(tmp_path / "study.db", fingerprint()) as ledger:
        ledger.storage = "postgresql://me:secret@127.0.0.1:9/db"
        with StudyExport(ledger, Console(quiet=True)):
            pass
    assert "secret" not in " ".join(started[0])
    assert started[0][0] == sys.executable
