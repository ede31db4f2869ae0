"""The cost of a search, alone and shared, besides its evaluations: real processes, ledger, study and messages, a device
that sleeps.

    python benchmarks/search_sharing.py [--processes 2] [--milliseconds 12.5] [--population 50] [--generations 20]

An evaluation takes as long as its blocks, those that are kept (search.prefix_cache) left out, in the proportions of the
paper's network: `--milliseconds` is the mean of a search by one process. As a GPU does, the device begins with a path's
first kernels while Python starts the others, 0.7 ms a block, of which a part lets other threads run; each process has a
device of its own. What is left of the time is that of proposals, messages, ledger and waiting for one another, and what
they take from the thread that starts kernels. The study for Optuna is written beside it, as `slicemamba search` does;
how long that goes on afterwards is told, too. No GPU is needed, so this says what the code costs, not how fast a GPU
is: `search_gpu.py --processes 2` does that.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nnunetv2_slicemamba.search import (
    Architecture,
    Evaluation,
    Fingerprint,
    Ledger,
    SearchSettings,
    open_ledger,
    run_search,
)
from nnunetv2_slicemamba.search.evaluation.prefix_cache import shared_blocks
from nnunetv2_slicemamba.search.ledger import study_export
from nnunetv2_slicemamba.search.ledger.evaluation_log import LOG_FOLDER
from nnunetv2_slicemamba.search.ledger.study_export import StudyExport
from nnunetv2_slicemamba.search.records import Done, Task
from nnunetv2_slicemamba.search.workers.base import BatchedWorkers, More, Workers, no_more
from nnunetv2_slicemamba.search.workers.processes import Process
from nnunetv2_slicemamba.search.workers.shared import SharedWorkers, help_out

CANDIDATES = ((2, 2), (2, 4), (4, 2), (4, 4))
# Time of a block, relative: it falls with the resolution, at last no further. Encoder, then decoder.
N_ENCODER = 15
BLOCKS = (4, 4, 2, 2, *9 * (1,), 0.75, 0.75, 1, 1, 2, 2, 4, 4, 4)
STARTING = (0.001, 0.0007)  # seconds of Python for a path, and for each of its blocks that is computed
FIRST_KERNEL = 0.0005  # seconds until the device begins with a path
LAST_KERNEL = 0.0003  # seconds that the device still works when all are started
OTHERS = bytes(30_000)  # some 15 us of work that does not hold Python's lock


def fitness_of(architecture: Architecture) -> float:
    """The same for the same architecture, and the likelier high the more a parent's blocks it has, as of a network."""
    values = [hashlib.sha256(bytes((block, gene))).digest()[0] / 255 for block, gene in enumerate(architecture)]
    return sum(values) / len(values)


class Device:
    """Evaluates by sleeping. unit: seconds of a block with the weight 1. busy: seconds that it worked."""

    def __init__(self, unit: float) -> None:
        self.unit, self.busy = unit, 0.0
        self._kept: set[Architecture] = set()
        self._free = 0.0

    def evaluate(
        self, tasks: Sequence[Task], go_on: Callable[[], bool] = lambda: True, more: More = no_more
    ) -> Iterator[Done]:
        """The tasks as PathEvaluation.count_paths orders, keeps and gives them."""
        before = None
        while tasks:
            ordered = sorted(tasks, key=lambda task: task.architecture)
            shared = [(b.architecture, shared_blocks(a.architecture, b.architecture)) for a, b in pairwise(ordered)]
            expected = {architecture[:length] for architecture, length in shared}
            for task in ordered:
                if not go_on():
                    return
                ends = self._send(task.architecture, expected)
                if before is not None:
                    yield self._result(*before)
                before = task, ends
            tasks = more()
        if before is not None:
            yield self._result(*before)

    def _send(self, architecture: Architecture, expected: set[Architecture]) -> float:
        """Time at which the path will be done."""
        n = len(architecture)
        known = next((length for length in range(n, 0, -1) if architecture[:length] in self._kept), 0)
        began = time.perf_counter()
        started = began + STARTING[0] + STARTING[1] * (n - known)
        while time.perf_counter() < started:
            held = time.perf_counter() + 10e-6
            while time.perf_counter() < held:
                pass
            zlib.crc32(OTHERS)
        for length in range(known, n + 1):
            if length <= N_ENCODER or architecture[:length] in expected:
                self._kept.add(architecture[:length])
        seconds = self.unit * (1 + sum(BLOCKS[known:]))
        last = time.perf_counter() + LAST_KERNEL
        self._free = max(max(self._free, began + FIRST_KERNEL) + seconds, last)
        self.busy += seconds
        return self._free

    def _result(self, task: Task, ends: float) -> Done:
        time.sleep(max(0.0, ends - time.perf_counter()))
        fitness = fitness_of(task.architecture)
        return Done(task, Evaluation(fitness, {"dice_per_class": [fitness]}), 0.0)


def search(
    workers_of: Callable[[Ledger], contextlib.AbstractContextManager[Workers]], settings: SearchSettings, folder: Path
) -> dict[str, float]:
    """Seconds of a whole search, of its study after it, and its best fitness."""
    n = len(BLOCKS)
    content = Fingerprint("Benchmark", "none", "paper", "2d", 0, "0" * 64, "0" * 64, n, CANDIDATES, settings)
    with open_ledger(folder / "study.db", content) as ledger:
        with StudyExport(ledger), workers_of(ledger) as workers:
            began = time.perf_counter()
            result = run_search(workers, settings, ledger, progress=False)
            ended = time.perf_counter()
        return {"seconds": ended - began, "study": time.perf_counter() - ended, "best": result.best.fitness}


def alone(unit: float, settings: SearchSettings) -> dict[str, float]:
    device = Device(unit)
    with tempfile.TemporaryDirectory() as folder:
        found = search(lambda ledger: contextlib.nullcontext(BatchedWorkers(device)), settings, Path(folder))
    return {**found, "busy": device.busy}


def together(processes: int, unit: float, settings: SearchSettings) -> dict[str, float]:
    """This program, started by torchrun; what `one_of_several` wrote. busy: of the device that worked longest."""
    with tempfile.TemporaryDirectory() as folder:
        torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
        options = ("--unit", repr(unit), "--folder", folder)
        sizes = ("--population", str(settings.population), "--generations", str(settings.generations))
        subprocess.run([*torchrun, __file__, *options, *sizes], check=True)
        found = [json.loads(file.read_text()) for file in Path(folder).glob("*.json")]
    (writer,) = (one for one in found if "seconds" in one)
    return {**writer, "busy": max(one["busy"] for one in found)}


def one_of_several(process: Process, unit: float, settings: SearchSettings, folder: Path) -> None:
    device, store = Device(unit), process.connect()
    told: dict[str, float] = {}
    store.add("ready", 1)
    while store.add("ready", 0) < process.world:
        time.sleep(0.01)
    if process.is_writer:
        told = search(lambda ledger: SharedWorkers(store, process.world, device, ledger.log), settings, folder)
    else:
        help_out(store, process.rank, lambda: device, folder / LOG_FOLDER)
    (folder / f"{process.rank}.json").write_text(json.dumps({**told, "busy": device.busy}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--milliseconds", type=float, default=12.5, help="mean of an evaluation by one process")
    parser.add_argument("--population", type=int, default=50)
    parser.add_argument("--generations", type=int, default=20)
    parser.add_argument("--unit", type=float, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    study_export.WAIT_SECONDS = 600.0
    settings = SearchSettings(given.population, given.generations)
    process = Process.from_environment()
    if process.world > 1:
        one_of_several(process, given.unit, settings, given.folder)
        return
    # how many blocks are kept does not depend on how long one takes
    unit = given.milliseconds / 1000 * settings.evaluations / alone(1e-9, settings)["busy"] * 1e-9
    one, several = alone(unit, settings), together(given.processes, unit, settings)
    title = f"{settings.evaluations} evaluations of {given.milliseconds:g} ms on a device that sleeps"
    columns = ("processes", "s", "of these a device works", "the rest, ms a generation", "times as fast")
    table = Table(*columns, "s until the study is whole", title=title)
    for number, found in ((1, one), (given.processes, several)):
        rest = 1000 * (found["seconds"] - found["busy"]) / (settings.generations + 1)
        faster = f"{one['seconds'] / found['seconds']:.2f}"
        row = (f"{found['seconds']:.2f}", f"{found['busy']:.2f}", f"{rest:.0f}", faster, f"{found['study']:.1f}")
        table.add_row(str(number), *row)
    Console(width=110).print(table)
    if one["best"] != several["best"]:
        raise SystemExit("the searches ended differently")


if __name__ == "__main__":
    main()
