"""Processes make numbered batches, which come in the order of their numbers; what goes wrong there is reported."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from nnunetv2_slicemamba.augmentation import workers
from nnunetv2_slicemamba.augmentation.workers import BatchWorkers


class Make:
    """Writes a batch's number into its place of shared memory; even ones take longer."""

    def __init__(self, places: int) -> None:
        self.memory = torch.full((places,), -1).share_memory_()

    def __call__(self, number: int, place: int) -> Any:
        time.sleep(0.05 * (number % 2 == 0))
        self.memory[place] = number
        if number == 13:
            raise ValueError("an unlucky number")
        if number == 14:
            os.kill(os.getpid(), signal.SIGKILL)
        return number, os.getpid()


@pytest.fixture(params=["fork", "spawn"])
def started(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BatchWorkers]]:
    """Workers to be closed; processes are started by both methods."""
    monkeypatch.setattr(workers, "multiprocessing", WithMethod(request.param))
    made: list[BatchWorkers] = []
    yield made
    for one in made:
        one.close()


class WithMethod:
    """multiprocessing with a start method of its own."""

    def __init__(self, method: str) -> None:
        self.context = multiprocessing.get_context(method)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.context, name)


def test_batches_come_in_order_from_several_processes(started: list[BatchWorkers]) -> None:
    make = Make(4)
    started.append(BatchWorkers(make, first=3, processes=2, places=4))
    seen, makers = [], set()
    for _ in range(9):
        number, place, (content, maker) = next(started[0])
        assert number == content == int(make.memory[place])
        started[0].release(place)
        seen.append(number)
        makers.add(maker)
    assert seen == list(range(3, 12))
    processes = list(started[0].processes)
    # one may start too late to make any
    assert makers <= {process.pid for process in processes}
    started[0].close()
    assert not any(process.is_alive() for process in processes)


def test_a_place_in_use_is_not_written_to() -> None:
    make = Make(2)
    made = BatchWorkers(make, first=0, processes=1, places=2)
    _, held, _ = next(made)
    for _ in range(5):
        _, place, _ = next(made)
        made.release(place)
    assert place != held
    assert int(make.memory[held]) == 0
    made.close()


def test_without_processes_batches_are_made_when_they_are_asked_for() -> None:
    made = BatchWorkers(Make(1), first=5, processes=0, places=1)
    for expected in (5, 6, 7):
        number, place, (_, maker) = next(made)
        made.release(place)
        assert number == expected
        assert maker == os.getpid()


def take(made: BatchWorkers, count: int) -> None:
    for _ in range(count):
        made.release(next(made)[1])


def test_an_error_comes_with_its_traceback() -> None:
    made = BatchWorkers(Make(2), first=12, processes=1, places=1)
    with pytest.raises(RuntimeError, match="making batch 13 failed:(.|\n)*ValueError: an unlucky number"):
        take(made, 2)
    made.close()


def test_a_process_that_died_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "CHECK_SECONDS", 0.1)
    made = BatchWorkers(Make(1), first=14, processes=1, places=1)
    with pytest.raises(RuntimeError, match="ended with exit code -9"):
        take(made, 1)
    made.close()


ORPHANS = """
import sys
sys.path.insert(0, {folder!r})
from test_workers import Make
from nnunetv2_slicemamba.augmentation.workers import BatchWorkers
made = BatchWorkers(Make(1), first=0, processes=1, places=1)
next(made)
print(made.processes[0].pid, flush=True)
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_end_when_the_training_was_killed() -> None:
    script = ORPHANS.format(folder=os.path.dirname(__file__))
    run = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=False)
    assert run.returncode == -signal.SIGKILL
    orphan = int(run.stdout)
    deadline = time.time() + 20
    while is_running(orphan) and time.time() < deadline:
        time.sleep(0.1)
    assert not is_running(orphan)


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
