"""Processes that make numbered batches, which are handed out in the order of their numbers."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
import traceback
from collections.abc import Callable
from queue import Empty
from typing import Any

import torch
from threadpoolctl import threadpool_limits

CHECK_SECONDS = 2.0  # between looks whether those that are waited for still live


class BatchWorkers:
    """Makes batches `first`, `first` + 1, ... ahead of their use.

    make: called as make(number, place) in a process of its own, returns what is handed out; picklable where processes
    are not forked. places: how many batches may be made or in use at a time; a place is used again once it is
    released. processes: 0 to make each batch when it is asked for.
    """

    def __init__(self, make: Callable[[int, int], Any], first: int, processes: int, places: int) -> None:
        self.make, self.number, self.asked = make, first, first
        self.made: dict[int, tuple[int, Any]] = {}
        self.processes: list[Any] = []
        self.free = list(range(places))
        if processes:
            self.tasks: Any = multiprocessing.Queue()
            self.results: Any = multiprocessing.Queue()
            for _ in range(processes):
                arguments = (make, self.tasks, self.results)
                self.processes.append(multiprocessing.Process(target=work, args=arguments, daemon=True))
            for process in self.processes:
                process.start()
            atexit.register(self.close)
            self._ask()

    def __next__(self) -> tuple[int, int, Any]:
        """Number, place and content of the next batch; RuntimeError if a process failed or died."""
        if not self.processes:
            place = self.free.pop()
            self.made[self.number] = place, self.make(self.number, place)
        while self.number not in self.made:
            number, place, content = self._receive()
            self.made[number] = place, content
        place, content = self.made.pop(self.number)
        self.number += 1
        return self.number - 1, place, content

    def release(self, place: int) -> None:
        """Says that a batch's memory is no longer read."""
        self.free.append(place)
        self._ask()

    def close(self) -> None:
        """Ends the processes."""
        if self.processes:
            atexit.unregister(self.close)
            for process in self.processes:
                process.terminate()
            for process in self.processes:
                process.join()
            for queue in (self.tasks, self.results):
                queue.cancel_join_thread()
                queue.close()
            self.processes, self.free = [], []

    def _ask(self) -> None:
        while self.processes and self.free:
            self.tasks.put((self.asked, self.free.pop(0)))
            self.asked += 1

    def _receive(self) -> tuple[int, int, Any]:
        while True:
            try:
                number, place, content, error = self.results.get(timeout=CHECK_SECONDS)
            except Empty:
                dead = [process for process in self.processes if not process.is_alive()]
                if dead:
                    raise RuntimeError(
                        f"a process that reads batches ended with exit code {dead[0].exitcode}: often the memory was "
                        "too short; set nnUNet_n_proc_DA to fewer processes"
                    ) from None
            else:
                if error is not None:
                    raise RuntimeError(f"making batch {number} failed:\n{error}")
                return number, place, content


def work(make: Callable[[int, int], Any], tasks: Any, results: Any) -> None:
    """Makes batches until the parent ends it, or ends without it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    # Ctrl-C is the parent's to answer; its handler of SIGTERM, if it has one, is not ours
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    with threadpool_limits(1):
        while parent.is_alive():
            try:
                number, place = tasks.get(timeout=CHECK_SECONDS)
            except Empty:
                continue
            try:
                results.put((number, place, make(number, place), None))
            except Exception:
                results.put((number, place, None, traceback.format_exc()))
                return
