"""A search by several processes with a cheap evaluation, for the tests; each process can be killed at any moment.

Every process appends "PID ARCHITECTURE" to a file after each of its evaluations, before anybody else hears of it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# imported for the server that forks the processes, which then need not
import optuna
import optuna.storages  # noqa: F401
import sqlalchemy  # noqa: F401
import torch.distributed.rendezvous  # noqa: F401
from rich.console import Console

from nnunetv2_slicemamba.search import SearchSettings, open_ledger, run_search
from nnunetv2_slicemamba.search.ledger.evaluation_log import LOG_FOLDER
from nnunetv2_slicemamba.search.records import Done, Task
from nnunetv2_slicemamba.search.workers.base import More, no_more
from nnunetv2_slicemamba.search.workers.meeting import meet
from nnunetv2_slicemamba.search.workers.processes import Process
from nnunetv2_slicemamba.search.workers.shared import SharedWorkers, help_out
from nnunetv2_slicemamba.slicing.candidates import Slicing
from tests.search.killable_search import CANDIDATES, evaluate, fingerprint

SETTINGS = SearchSettings(population=12, generations=6, parents=3, seed=7)  # not over before it is killed


class Cheap:
    """Evaluates in the given order, each for some milliseconds."""

    def __init__(self, log: Path, seconds: float) -> None:
        self._log, self._seconds = log, seconds

    def evaluate(self, tasks: Sequence[Task], go_on: Callable[[], bool], more: More = no_more) -> Iterator[Done]:
        while tasks:
            for task in tasks:
                if not go_on():
                    return
                time.sleep(self._seconds)
                line = f"{os.getpid()} {task.architecture}\n".encode()
                file = os.open(self._log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
                os.write(file, line)
                os.close(file)
                yield Done(task, evaluate(task.architecture), self._seconds)
            tasks = more()


def process_of_a_search(
    folder: Path,
    rank: int,
    world: int,
    port: int,
    seconds: float,
    budget: float | None,
    candidates: Slicing = CANDIDATES,
) -> None:
    """What search_fold does, without a network."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    process = Process.from_environment()
    assert (process.rank, process.world) == (rank, world)
    evaluator = Cheap(folder / "log", seconds)
    if not process.is_writer:
        with contextlib.suppress(RuntimeError):  # the writer was killed
            help_out(meet(process, folder / LOG_FOLDER), rank, lambda: evaluator, folder / LOG_FOLDER)
        return
    with (
        open_ledger(folder / "study.db", fingerprint(SETTINGS, candidates=candidates)) as ledger,
        SharedWorkers(meet(process, ledger.log.folder), world, evaluator, ledger.log) as workers,
    ):
        result = run_search(workers, SETTINGS, ledger, console=Console(quiet=True), time_budget=budget)
    (folder / "done").write_text(f"{result.complete} {result.evaluated_now}")


_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_ports = itertools.cycle(range(20_000 + 300 * (_WORKER % 40), 20_300 + 300 * (_WORKER % 40)))


def free_port() -> int:
    """A port that nobody listens on, and that nobody is given by chance before it is used.

    It lies below the ports that Linux gives to connections, and each of pytest-xdist's processes has its own.
    """
    for port in itertools.islice(_ports, 300):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port of connections just closed is free
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")
