"""Pool of processes: jobs run in this process or in several, and their results come as they are done."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import TypeVar

from nnunetv2.configuration import default_num_processes

from nnunetv2_slicemamba.common.stopping import end_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")

# A new process imports torch, nnU-Net and MONAI for several seconds: not worth it below this many pixels
PIXELS_FOR_PROCESSES = 30_000_000


def choose_processes(given: int | None, pixels: int, jobs: int) -> int:
    """Processes to use: `given`, else one for little work, else nnU-Net's default as far as there are cores."""
    if given is None:
        given = min(default_num_processes, os.cpu_count() or 1) if pixels >= PIXELS_FOR_PROCESSES else 1
    return max(1, min(given, jobs))


class JobPool:
    """Processes that stay for several rounds of jobs; a context manager. With one, jobs run in this process."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> JobPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=error is None, cancel_futures=True)

    def results_of(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """Results of function(job), in the order in which they are done. Each process holds one job at a time.

        What a job raises is raised here; RuntimeError if a process was killed.
        """
        if self._processes == 1 or len(jobs) < 2:
            yield from map(function, jobs)
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._processes, multiprocessing.get_context("spawn"), _prepare)
        try:
            for future in as_completed([self._pool.submit(function, job) for job in jobs]):
                yield future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"one of {self._processes} processes was killed, probably because memory ran out; try fewer with -np"
            ) from error


def _prepare() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    # each worker holds the other end of the queue that it waits at, and would not notice a parent that was killed
    end_with_parent(parent.pid)
    # Ctrl-C ends the worker at once and in silence; the main process reports
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import torch

    torch.set_num_threads(1)
