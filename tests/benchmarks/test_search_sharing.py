"""The benchmark of what sharing a search costs: its made-up device keeps, orders and counts as a real one would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import search_sharing
from search_sharing import BLOCKS, N_ENCODER, Device, fitness_of

from nnunetv2_slicemamba.search.records import tasks_of

N = len(BLOCKS)


def path(*first: int) -> tuple[int, ...]:
    return (*first, *(N - len(first)) * (0,))


def test_blocks_that_are_kept_cost_nothing() -> None:
    device = Device(1e-6)
    list(device.evaluate(tasks_of([path()])))
    assert device.busy == pytest.approx(1e-6 * (1 + sum(BLOCKS)))
    list(device.evaluate(tasks_of([path(0, 0, 0, 1)])))
    assert device.busy == pytest.approx(1e-6 * (2 + sum(BLOCKS) + sum(BLOCKS[3:])))
    # of the decoder's only where another path of the same call is expected to begin so
    last = (*(N - 1) * (0,), 1)
    list(device.evaluate(tasks_of([last])))
    assert device.busy == pytest.approx(1e-6 * (3 + sum(BLOCKS) + sum(BLOCKS[3:]) + sum(BLOCKS[N_ENCODER:])))
    before = device.busy
    list(device.evaluate(tasks_of([path(2), (2, *last[1:])])))
    assert device.busy - before == pytest.approx(1e-6 * (2 + sum(BLOCKS) + BLOCKS[-1]))


def test_results_come_with_their_tasks_those_asked_for_late_too() -> None:
    tasks = tasks_of([path(3), path(2), path(1, 1), path(1, 0)])
    left = [tasks[2:]]
    given = list(Device(1e-6).evaluate(tasks[:2], more=lambda: left.pop() if left else []))
    assert [done.task for done in given] == [tasks[i] for i in (1, 0, 3, 2)]
    assert [done.evaluation.fitness for done in given] == [fitness_of(done.task.architecture) for done in given]


def test_two_processes_end_as_one_and_the_table_tells_what_the_rest_took() -> None:
    few = ("--population", "6", "--generations", "2", "--milliseconds", "2")
    run = subprocess.run([sys.executable, search_sharing.__file__, *few], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    rows = [line.split("│")[1:6] for line in run.stdout.splitlines() if line.startswith("│")]
    assert [int(row[0]) for row in rows] == [1, 2]
    for row in rows:
        seconds, busy, rest = (float(cell) for cell in row[1:4])
        assert seconds > busy > 0
        assert rest == pytest.approx(1000 * (seconds - busy) / 3, abs=4)
