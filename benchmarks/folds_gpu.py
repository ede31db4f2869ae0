"""Time of all folds at once on the GPUs of one machine, beside the same folds in a row, with the use of CPU and GPU.

    python benchmarks/folds_gpu.py [--gpus 4] [--per-gpu 2] [--epochs 20] [--fold-by-fold] [--csv FOLDER] [--json FILE]
    python benchmarks/folds_gpu.py --at-once 2 --dataset 901 --configuration 2d --epochs 1      # without a GPU

Needs nnU-Net's three folders, with the data set laid out as raw data (Dataset715_hippocampus). What is not planned and
preprocessed is first, and one epoch is trained, so that kernels are compiled; neither counts. Then `slicemamba run`
trains and validates the folds from nothing, once at once and once in a row, into result folders of its own in --work.
"CPU" is the mean number of cores that the run and its processes keep busy, "GPU" the mean use of the GPUs that it has,
as nvidia-smi tells it once a second, "memory" the most that is in use on one of them.

What was measured is kept in --work, so that the same command goes on after an end. --fold-by-fold measures the row fold
by fold, each by a run of its own: less is lost by an end, and each fold but the first adds the start of a command.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import results
import torch
from rich.console import Console
from rich.table import Table
from timing import add_csv, device_name

from nnunetv2_slicemamba.planning.sizes import RECOMMENDED, SIZES, plans_name_of

PREFIX = "SliceMambaTrainer"
ROW, AT_ONCE = "in a row", "at once"


@dataclass(frozen=True)
class Measured:
    """Time and use of a run. seconds: wall time. cpu: seconds of CPU. gpu: mean use in %. memory: most GiB on a GPU."""

    seconds: float
    cpu: float
    gpu: float | None
    memory: float | None


def family_seconds(root: int) -> dict[tuple[int, str], float]:
    """CPU seconds of a process and all that it has started, by number and time of start."""
    ticks, parents, found = os.sysconf("SC_CLK_TCK"), {}, {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            number = int(entry.parent.name)
            parents[number] = int(fields[1])
            found[number] = (fields[19], (int(fields[11]) + int(fields[12])) / ticks)
    family = {root}
    while more := {number for number, parent in parents.items() if parent in family} - family:
        family |= more
    return {(number, found[number][0]): found[number][1] for number in family if number in found}


def gpu_use(gpus: int) -> list[tuple[float, float]]:
    """Use in percent and GiB in use of the first GPUs now; nothing without a GPU."""
    if not gpus:
        return []
    query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[:gpus]
    return [(float(use), float(memory) / 1024) for use, memory in (line.split(",") for line in lines)]


@contextlib.contextmanager
def sampling(process: int, gpus: int) -> Iterator[tuple[dict[tuple[int, str], float], list[list[tuple[float, float]]]]]:
    """Context in which a process's CPU seconds and the GPUs' use are noted once a second."""
    cpu: dict[tuple[int, str], float] = {}
    use: list[list[tuple[float, float]]] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(1):
            cpu.update(family_seconds(process))
            use.append(gpu_use(gpus))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield cpu, use
    finally:
        ended.set()
        thread.join()


def measure(command: Sequence[str], folder: Path, gpus: int) -> Measured:
    """Calls `slicemamba ...` with an empty nnUNet_results in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    variables = {**os.environ, "nnUNet_results": str(folder)}
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "nnunetv2_slicemamba", *command], env=variables)
    try:
        with sampling(process.pid, gpus) as (cpu, use):
            code = process.wait()
    finally:
        process.terminate()
    if code:
        raise SystemExit(f"'slicemamba {' '.join(command)}' ended with {code}; the same command measures it again")
    seconds = time.monotonic() - start
    shutil.rmtree(folder)
    samples = [one for sample in use for one in sample]
    mean = sum(percent for percent, _ in samples) / len(samples) if samples else None
    return Measured(seconds, sum(cpu.values()), mean, max((memory for _, memory in samples), default=None))


def together(parts: Sequence[Measured]) -> Measured:
    """Runs after one another as one."""
    seconds = sum(part.seconds for part in parts)
    use = [(part.gpu, part.seconds, part.memory) for part in parts]
    mean = None if use[0][0] is None else sum((gpu or 0) * s for gpu, s, _ in use) / seconds
    most = None if use[0][2] is None else max(memory or 0 for _, _, memory in use)
    return Measured(seconds, sum(part.cpu for part in parts), mean, most)


def measure_all(asked: argparse.Namespace, plans: str, work: Path) -> dict[str, Measured]:
    """Measures what is not in WORK/measured.json yet."""
    on_gpus, file = not asked.at_once, work / "measured.json"
    device = "cuda" if on_gpus else "cpu"
    common = ["run", "-d", asked.dataset, "-c", asked.configuration, "-p", plans, "-device", device]
    trainer = ["-tr", f"{PREFIX}_{asked.epochs}epoch{'s' * (asked.epochs > 1)}"]
    places = ["--gpus", str(asked.gpus), "--per-gpu", str(asked.per_gpu)] if on_gpus else []
    places = places or ["--at-once", str(asked.at_once)]
    rows = [[fold] for fold in asked.folds] if asked.fold_by_fold else [asked.folds]
    parts = {f"{ROW}, fold {' '.join(folds)}": (folds, [], 1) for folds in rows}
    parts = {AT_ONCE: (asked.folds, places, asked.gpus), **parts}
    called = {name: [*common, *trainer, "-f", *folds, *options] for name, (folds, options, _) in parts.items()}
    known = json.loads(file.read_text()) if file.is_file() else {}
    known = {name: one for name, one in known.items() if one["command"] == called.get(name)}
    if on_gpus and len(known) < len(parts):
        measure([*common, "-tr", f"{PREFIX}_1epoch", "-f", asked.folds[0]], work / "warm_up", 0)
    for name, (_, _, gpus) in parts.items():
        if name not in known:
            found = measure(called[name], work / "results", gpus if on_gpus else 0)
            known[name] = {"command": called[name], **asdict(found)}
            file.write_text(json.dumps(known, indent=1))
    found = {
        name: Measured(**{key: value for key, value in one.items() if key != "command"}) for name, one in known.items()
    }
    return {ROW: together([one for name, one in found.items() if name != AT_ONCE]), AT_ONCE: found[AT_ONCE]}


def show(measured: dict[str, Measured], title: str) -> None:
    table = Table("folds", "seconds", "of the row", "CPU, cores", "GPU, %", "memory, GiB", title=title)
    for name, one in measured.items():
        cells = (f"{one.seconds:.1f}", f"{one.seconds / measured[ROW].seconds:.3f}", f"{one.cpu / one.seconds:.2f}")
        table.add_row(name, *cells, *("-" if value is None else f"{value:.1f}" for value in (one.gpu, one.memory)))
    Console(width=120).print(table)


def figures_of(measured: dict[str, Measured], work: str, size: str) -> list[tuple[str, str, str, float | None, str]]:
    """Rows of timings.csv."""
    share = measured[AT_ONCE].seconds / measured[ROW].seconds
    rows: list[tuple[str, float | None, str]] = [("share of the row", share, "1")]
    for name, one in measured.items():
        rows += [(name, one.seconds, "s"), (f"CPU {name}", one.cpu / one.seconds, "cores")]
        rows += [(f"GPU {name}", one.gpu, "%"), (f"memory {name}", one.memory, "GiB")]
    return [(work, size, figure, value, unit) for figure, value, unit in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="715")
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--size", default="L", choices=tuple(SIZES), help="size of the recommended network to plan")
    parser.add_argument("--folds", nargs="+", default=list("01234"))
    parser.add_argument("--epochs", type=int, default=20, choices=(1, 5, 10, 20, 50, 100))
    parser.add_argument("--gpus", type=int, default=4)
    parser.add_argument("--per-gpu", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=0, help="train so many folds at once on the CPU")
    parser.add_argument("--fold-by-fold", action="store_true")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "folds_gpu")
    parser.add_argument("--json", type=Path, default=None)
    add_csv(parser)
    asked = parser.parse_args()
    plans, work = plans_name_of(asked.size, RECOMMENDED), asked.work.absolute()
    plan = ["plan", "-d", asked.dataset, "-c", asked.configuration, "--size", asked.size, "--network", RECOMMENDED]
    subprocess.run([sys.executable, "-m", "nnunetv2_slicemamba", *plan], check=True)
    measured = measure_all(asked, plans, work)
    where = f"{asked.at_once} steps" if asked.at_once else f"{asked.gpus} GPUs, {asked.per_gpu} steps on each"
    what = f"{len(asked.folds)} folds of data set {asked.dataset}, {asked.configuration}, {asked.epochs} epochs"
    device = device_name(torch.device("cpu" if asked.at_once else "cuda"))
    show(measured, f"{what}; {where}; {device}")
    figures = figures_of(measured, what, f"{plans}, {where}")
    if asked.json is not None:
        asked.json.write_text(json.dumps([list(figure) for figure in figures], indent=1))
    if asked.csv is not None:
        results.write_timings(asked.csv, "folds_gpu", device, figures)


if __name__ == "__main__":
    main()
