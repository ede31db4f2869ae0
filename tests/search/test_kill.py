"""A search that is killed, again and again, ends as one that never was."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from nnunetv2_slicemamba.search import Record, open_ledger, read_ledger, run_search
from nnunetv2_slicemamba.search.ledger.study import copy_log
from tests.search import killable_search
from tests.search.killable_search import LONGER, evaluate, fingerprint


def content_of(records: list[Record]) -> list[tuple]:
    """Everything but the time it took; NaN made comparable."""
    return [
        (r.generation, r.index, r.origin, r.architecture, None if math.isnan(r.fitness) else r.fitness, dict(r.details))
        for r in records
    ]


def start(study: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, killable_search.__file__, str(study)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def kill_after(process: subprocess.Popen, n_lines: int, seconds: float) -> list[str]:
    """Read n_lines of its output, wait a moment, kill it for real. Returns what it evaluated: "end ..." lines."""
    assert process.stdout is not None
    printed = [process.stdout.readline() for _ in range(n_lines)]
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read()  # not communicate(), which would miss lines that were read ahead
    assert process.wait(60) == -signal.SIGKILL
    whole_lines = ("".join(printed) + rest).split("\n")[:-1]
    return [line for line in whole_lines if line.startswith("end")]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_search_killed_at_random_moments_ends_with_the_trials_and_winner_of_an_uninterrupted_one(tmp_path):
    with open_ledger(tmp_path / "whole.db", fingerprint(LONGER)) as ledger:
        whole = run_search(evaluate, LONGER, ledger, progress=False)
    assert any(math.isnan(r.fitness) for r in whole.records), "the test should include an undefined fitness"

    rng = random.Random()
    study = tmp_path / "killed.db"
    # While it imports, makes its files, or evaluates already. Nobody looks into what that one left but the next.
    ended = kill_after(start(study), 0, rng.uniform(0.2, 0.8))
    possible = [ended, ended[:-1]]
    for n_lines in (1, 2 * rng.randint(3, 6), 2 * rng.randint(2, 5) + 1):  # the first begun, then one ended, one begun
        ended = kill_after(start(study), n_lines, rng.uniform(0, 0.05))
        kept = [f"end {r.architecture}" for r in read_ledger(study)[1]]
        # Nothing kept is lost; of what this process evaluated, at most the last, killed while it was written.
        assert kept in [before + now for before in possible for now in (ended, ended[:-1])]
        possible = [kept]
    process = start(study)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert printed.splitlines()[-1] == "done"
    assert 0 < sum(line.startswith("begin") for line in printed.splitlines()) < len(whole.records), "it began anew"

    with open_ledger(study, fingerprint(LONGER)) as ledger:
        again = run_search(evaluate, LONGER, ledger, progress=False)
    assert again.evaluated_now == 0
    assert content_of(again.records) == content_of(whole.records)
    assert content_of([again.best]) == content_of([whole.best])

    trials = []
    for file in (study, tmp_path / "whole.db"):
        with open_ledger(file, fingerprint(LONGER)) as ledger:
            copy_log(ledger.log, file, timeout=-1)  # those beside the killed searches may still be at it
        trials.append(optuna.load_study(study_name=ledger.study_name, storage=f"sqlite:///{file}").trials)
    assert [t.number for t in trials[0]] == list(range(LONGER.evaluations)), "a half trial was left"
    assert all(t.state.is_finished() for t in trials[0])
    for killed, uninterrupted in zip(*trials, strict=True):
        assert (killed.params, killed.value, killed.state) == (
            uninterrupted.params,
            uninterrupted.value,
            uninterrupted.state,
        )
