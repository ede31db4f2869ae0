"""Workshop of accuracy.py, search_wide.py and paper.py: where trainings run, how many at a time, and for how long."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import results

from nnunetv2_slicemamba.common.commands import environment

# those that this process may use, which taskset limits
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
VISIBLE = "CUDA_VISIBLE_DEVICES"
SPARE = 20.0  # seconds between the end of trainings and that of the command


@dataclass(frozen=True)
class Workshop:
    """Folders and settings that all runs share. deadline: on time.monotonic's clock. processes: for preprocessing."""

    work: Path
    out: Path
    device: str
    gpus: Sequence[str]
    per_gpu: int
    trainers: Path | None
    deadline: float
    processes: int

    @classmethod
    def of(cls, given: argparse.Namespace, began: float, per_gpu: int, trainers: Path | None = None) -> Workshop:
        """The workshop of the given options, with folders for data."""
        gpus = (os.environ.get(VISIBLE) or ",".join(map(str, range(given.gpus)))).split(",")[: given.gpus]
        processes = max(1, CORES // min(len(gpus) * per_gpu, len(given.data)))
        (given.work / "nnUNet_preprocessed").mkdir(parents=True, exist_ok=True)
        settings = (given.device, gpus, per_gpu, trainers, began + given.seconds, processes)
        return cls(given.work.resolve(), given.out.resolve(), *settings)

    @property
    def places(self) -> int:
        """Trainings at a time on all GPUs."""
        return len(self.gpus) * self.per_gpu

    @property
    def until(self) -> float:
        """When trainings end by themselves, on time.time's clock."""
        return time.time() + self.deadline - SPARE - time.monotonic()

    def dataset(self, name: str) -> str:
        """Name of a dataset's nnU-Net folder, which has the next free number from 701 on."""
        raw = self.work / "nnUNet_raw"
        taken = sorted(folder.name for folder in raw.glob("Dataset*"))
        found = next((folder for folder in taken if folder[11:] == name), f"Dataset{701 + len(taken)}_{name}")
        (raw / found).mkdir(parents=True, exist_ok=True)
        return found

    def variables(self, folder: Path, gpu: str) -> dict[str, str]:
        """Environment of a training's process. folder: where it works."""
        known, share = environment(), str(max(1, CORES // self.places))
        trainers = [known["nnUNet_extTrainer"], *([str(self.trainers.resolve())] if self.trainers else [])]
        changed = {
            "nnUNet_raw": str(self.work / "nnUNet_raw"),
            "nnUNet_preprocessed": str(self.work / "nnUNet_preprocessed"),
            "nnUNet_results": str(folder / "nnUNet_results"),
            "nnUNet_extTrainer": os.pathsep.join(trainers),
            "nnUNet_n_proc_DA": share,
            "nnUNet_def_n_proc": share,
            "OMP_NUM_THREADS": known.get("OMP_NUM_THREADS", "1"),
            "PYTHONUNBUFFERED": "1",
            "SLICEMAMBA_DEBUG": "1",  # errors of `slicemamba` with their text
        }
        return {**known, **changed, **({VISIBLE: gpu} if self.device == "cuda" else {})}


def add_options(parser: argparse.ArgumentParser, per_gpu: int) -> None:
    """Adds the options of a workshop, but for --data, --work and --out."""
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--per-gpu", type=int, default=per_gpu, help="trainings at a time on each GPU")
    parser.add_argument("--seconds", type=float, default=math.inf, help="after which nothing runs any more")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two lines on a training")


class AtWork:
    """A run at work, in a process of its own. beside: ids of those that ran at some time while it did."""

    process: subprocess.Popen[bytes]

    def __init__(self, run: Any, shop: Workshop, gpu: str, folder: Path) -> None:
        self.run, self.shop, self.gpu, self.folder = run, shop, gpu, folder
        self.began, self.beside = time.monotonic(), set[str]()
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, script: str, order: Mapping[str, Any]) -> None:
        """Starts a script of this folder with the order as a file."""
        file = self.folder / "order.json"
        file.write_text(json.dumps(order))
        with (self.folder / "log.txt").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name(script)), str(file)],
                env=self.shop.variables(self.folder, self.gpu),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # it is ended with all its workers
            )

    def stop(self) -> int | None:
        """Ends what is left of the process and its workers; its exit code, None if it was at work."""
        code = self.process.poll()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return code

    @property
    def notes(self) -> dict[str, Any]:
        """The notes that the process has written of its work; empty before the first."""
        file = self.folder / "notes.json"
        return json.loads(file.read_text()) if file.is_file() else {}

    @property
    def last_line(self) -> str:
        """The message of the last traceback in the log, else its last line; workers may write on after it."""
        log = (self.folder / "log.txt").read_text(errors="replace")
        lines = [line[:300] for line in log.splitlines() if line.strip()]
        starts = [i for i, line in enumerate(lines) if line.startswith("Traceback")]
        ends = [line for line in lines[starts[-1] + 1 :] if not line.startswith(" ")] if starts else lines[-1:]
        return ends[0] if ends else ""


def work_off(runs: Sequence[Any], shop: Workshop, every: float, start: Callable[..., Any]) -> None:
    """Runs what there is time for, in the order given, as many at a time as there are places.

    start: makes a training, an AtWork with `progress` and `end`, of a run, the workshop and a GPU.
    """

    def say(training: Any, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {training.run.id}: {text}", flush=True)

    waiting, running, said = list(runs), list[Any](), time.monotonic()
    try:
        while time.monotonic() < shop.deadline - SPARE / 2:
            for training in [training for training in running if training.process.poll() is not None]:
                running.remove(training)
                say(training, training.end())
            load = {gpu: sum(training.gpu == gpu for training in running) for gpu in shop.gpus}
            gpu = min(load, key=load.__getitem__)
            if time.monotonic() > shop.deadline - 2 * SPARE:
                waiting.clear()
            if waiting and load[gpu] < shop.per_gpu:
                running.append(start(waiting.pop(0), shop, gpu))
                say(running[-1], "started")
                for training in running:
                    training.beside |= {other.run.id for other in running}
            elif not running:
                return
            if time.monotonic() - said >= every:
                said = time.monotonic()
                for training in running:
                    say(training, training.progress())
            time.sleep(0.2)
    finally:
        for training in running:
            say(training, training.end())


def known_rows(table: str, out: Path) -> dict[str, results.Row]:
    """Rows of a table by their id, of benchmarks/results and of `out`; a finished result wins."""
    rows = [row for folder in (results.RESULTS, out) for row in results.read(table, folder)]
    return {row["id"]: row for row in sorted(rows, key=lambda row: row["state"] == "finished")}


def finish(
    runs: Sequence[Any], shop: Workshop, every: float, start: Callable[..., Any], table: str = "runs"
) -> list[str]:
    """Works off the runs without a finished result in a table; ids of those that have none afterwards."""

    def left() -> list[Any]:
        known = known_rows(table, shop.out)
        return [run for run in runs if known.get(run.id, {}).get("state") != "finished"]

    work_off(left(), shop, every, start)
    return [run.id for run in left()]


def run_main(main: Callable[[], int]) -> None:
    """Exits with main's code; signals become KeyboardInterrupt."""
    for number in (signal.SIGINT, signal.SIGTERM):  # trainings have sessions of their own: they are ended before
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
