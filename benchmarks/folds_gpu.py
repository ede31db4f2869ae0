"""Time of all folds at once on the GPUs of one machine, beside the same folds in a row, with the use of CPU and GPU.

    python benchmarks/folds_gpu.py [--gpus 4] [--per-gpu 2] [--epochs 20] [--fold-by-fold] [--csv FOLDER] [--json FILE]
    python benchmarks/folds_gpu.py --at-once 2 --dataset 901 --configuration 2d --epochs 1      # without a GPU

Needs nnU-Net's folders of raw and preprocessed data, with the data set laid out as raw data (Dataset715_hippocampus).
It is planned and preprocessed first, where it is not, and one epoch is trained, so that kernels are compiled. Neither
counts. Then `slicemamba run` trains and validates the folds from nothing, once at once and once in a row. "CPU" is the
mean number of cores that the run and its processes keep busy, "GPU" the mean use of the GPUs that it has, as nvidia-smi
tells it once a second, "memory" the most that is in use on one of them.

What was measured is kept in measured.json in --work, so that the same command goes on after an end. --fold-by-fold
measures the row fold by fold, each by a run of its own: less is lost by an end, and each fold but the first adds the
start of a command. --part measures one part alone. The row takes one GPU, so that others are free for other work:

    CUDA_VISIBLE_DEVICES=0 python benchmarks/folds_gpu.py --gpus 2 --per-gpu 3 --part row --work FOLDER
    python benchmarks/folds_gpu.py --gpus 2 --per-gpu 3 --work FOLDER --csv TABLES    # what is left

Figures go to --csv and --json once both parts are measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
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

from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.planning.sizes import RECOMMENDED, SIZES, plans_name_of

PREFIX = "SliceMambaTrainer"
ROW, AT_ONCE = "in a row", "at once"
SAMPLE_SECONDS = 1.0
SLICEMAMBA = (sys.executable, "-m", "nnunetv2_slicemamba")


@dataclass(frozen=True)
class Part:
    """A run to be measured. arguments: of `slicemamba`. gpus: those that it has, as nvidia-smi names them."""

    name: str
    arguments: Sequence[str]
    gpus: Sequence[str]

    @property
    def command(self) -> str:
        return shell_line("slicemamba", *self.arguments)


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


def visible_gpus(n: int) -> list[str]:
    """The first `n` GPUs that CUDA_VISIBLE_DEVICES leaves, as nvidia-smi names them."""
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (given or [str(number) for number in range(n)])[:n]


def gpu_use(gpus: Sequence[str]) -> list[tuple[float, float]]:
    """Use in percent and GiB in use of GPUs now; nothing without one, and where nvidia-smi does not tell."""
    if not gpus:
        return []
    query = "--query-gpu=index,uuid,utilization.gpu,memory.used"
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        call = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
        lines = subprocess.run(call, capture_output=True, text=True, check=True, timeout=10).stdout.splitlines()
        rows = [[cell.strip() for cell in line.split(",")] for line in lines]
        own = [row for row in rows if any(name == row[0] or row[1].startswith(name) for name in gpus)]
        return [(float(use), float(memory) / 1024) for _, _, use, memory in own]
    return []


@contextlib.contextmanager
def sampling(
    process: int, gpus: Sequence[str]
) -> Iterator[tuple[dict[tuple[int, str], float], list[tuple[float, float]]]]:
    """Context in which a process's CPU seconds and the GPUs' use are noted once a second."""
    cpu: dict[tuple[int, str], float] = {}
    use: list[tuple[float, float]] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            cpu.update(family_seconds(process))
            use.extend(gpu_use(gpus))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield cpu, use
    finally:
        ended.set()
        thread.join()


def measure(part: Part, work: Path) -> Measured:
    """Calls a part's command with an empty nnUNet_results in `work`; an end of this process ends it, too."""
    print(f"{part.name}: {part.command}", flush=True)
    folder = work / f"results {part.name}".replace(",", "").replace(" ", "_")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    variables = {**os.environ, "nnUNet_results": str(folder)}
    start = time.monotonic()
    process = subprocess.Popen([*SLICEMAMBA, *part.arguments], env=variables)
    try:
        with sampling(process.pid, part.gpus) as (cpu, use):
            code = process.wait()
            seconds = time.monotonic() - start
    finally:
        process.terminate()
        process.wait()
    if code:
        raise SystemExit(f"'{part.command}' ended with {code}; its logs are in {folder}. The same command goes on here")
    shutil.rmtree(folder)
    mean = sum(percent for percent, _ in use) / len(use) if use else None
    found = Measured(seconds, sum(cpu.values()), mean, max((memory for _, memory in use), default=None))
    print(f"{part.name}: {seconds:.1f} s", flush=True)
    return found


def together(parts: Sequence[Measured]) -> Measured:
    """Runs after one another as one."""
    seconds = sum(part.seconds for part in parts)
    use = [(part.gpu * part.seconds, part.memory) for part in parts if part.gpu is not None and part.memory is not None]
    known = len(use) == len(parts)
    mean, most = sum(one for one, _ in use) / seconds, max((memory for _, memory in use), default=None)
    return Measured(seconds, sum(part.cpu for part in parts), mean if known else None, most if known else None)


def parts_of(asked: argparse.Namespace, plans: str) -> list[Part]:
    """The run at once, then those of the row."""
    device = "cpu" if asked.at_once else "cuda"
    arguments = ["run", "-d", asked.dataset, "-c", asked.configuration, "-p", plans, "-device", device]
    arguments += ["-tr", f"{PREFIX}_{asked.epochs}epoch{'s' * (asked.epochs > 1)}", "-f"]
    places = ["--gpus", str(asked.gpus), "--per-gpu", str(asked.per_gpu)]
    places = ["--at-once", str(asked.at_once)] if asked.at_once else places
    all_gpus = [] if asked.at_once else visible_gpus(asked.gpus)
    rows = [[fold] for fold in asked.folds] if asked.fold_by_fold else [asked.folds]
    row = [Part(f"{ROW}, fold {' '.join(folds)}", [*arguments, *folds], all_gpus[:1]) for folds in rows]
    return [Part(AT_ONCE, [*arguments, *asked.folds, *places], all_gpus), *row]


def read_measured(file: Path) -> dict[str, Measured]:
    """Earlier measurements kept in the work folder, by their command."""
    return {name: Measured(**one) for name, one in json.loads(file.read_text()).items()} if file.is_file() else {}


def measure_parts(parts: Sequence[Part], work: Path, asked: argparse.Namespace) -> None:
    """Measures parts and adds each to WORK/measured.json, once what they need is planned, preprocessed and compiled."""
    plan = ["plan", "-d", asked.dataset, "-c", asked.configuration, "--size", asked.size, "--network", RECOMMENDED]
    code = subprocess.run([*SLICEMAMBA, *plan], check=False).returncode
    if code:
        raise SystemExit(code)
    if not asked.at_once:
        short = list(parts[0].arguments)
        short[short.index("-tr") + 1] = f"{PREFIX}_1epoch"
        measure(Part("compiling", [*short[: short.index("-f")], "-f", asked.folds[0]], ()), work)
    file = work / "measured.json"
    for part in parts:
        found = measure(part, work)
        write_json(file, {name: asdict(one) for name, one in {**read_measured(file), part.command: found}.items()})


def summed(parts: Sequence[Part], known: dict[str, Measured]) -> dict[str, Measured]:
    """The row and the run at once, as far as they are measured."""
    row, at_once = [known.get(part.command) for part in parts[1:]], known.get(parts[0].command)
    found = {ROW: together([one for one in row if one is not None])} if None not in row else {}
    return found if at_once is None else {**found, AT_ONCE: at_once}


def show(measured: dict[str, Measured], title: str) -> None:
    table = Table("folds", "seconds", "of the row, %", "CPU, cores", "GPU, %", "memory, GiB")
    for name, one in measured.items():
        share = f"{100 * one.seconds / measured[ROW].seconds:.1f}" if ROW in measured else "-"
        cells = (f"{one.seconds:.1f}", share, f"{one.cpu / one.seconds:.2f}", _shown(one.gpu), _shown(one.memory))
        table.add_row(name, *cells)
    print(title)  # over the table it would be wrapped to its width
    Console(width=120).print(table)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def figures_of(measured: dict[str, Measured], work: str, size: str) -> list[tuple[str, str, str, float | None, str]]:
    """Rows of timings.csv."""
    share = 100 * measured[AT_ONCE].seconds / measured[ROW].seconds
    rows: list[tuple[str, float | None, str]] = [("share of the row", share, "%")]
    for name, one in measured.items():
        rows += [(name, one.seconds, "s"), (f"CPU {name}", one.cpu / one.seconds, "cores")]
        rows += [(f"GPU {name}", one.gpu, "%"), (f"memory {name}", one.memory, "GiB")]
    # three digits behind the point, as many as these times are worth
    return [(work, size, figure, None if value is None else round(value, 3), unit) for figure, value, unit in rows]


def add_figures(folder: Path, device: str, figures: Sequence[tuple[str, str, str, float | None, str]]) -> None:
    """Adds figures to timings.csv in `folder`, unless it has them from an earlier call."""
    there = {
        (*(row[name] for name in ("benchmark", "work", "size", "figure")), results.number(row["value"]))
        for row in results.read("timings", folder)
    }
    new = [one for one in figures if ("folds_gpu", *one[:4]) not in there]
    results.write_timings(folder, "folds_gpu", device, new)


def arguments_of(given: Sequence[str] | None) -> argparse.Namespace:
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
    parser.add_argument("--part", choices=("both", "row", "at-once"), default="both", help="what to measure now")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "folds_gpu")
    parser.add_argument("--json", type=Path, default=None)
    add_csv(parser)
    asked = parser.parse_args(given)
    needed = 0 if asked.at_once else 1 if asked.part == "row" else asked.gpus
    if needed > (there := torch.cuda.device_count() if needed else 0):
        parser.error(f"--gpus is {asked.gpus}, and {there} can be used: give fewer, or --at-once for the CPU")
    if needed and shutil.which("nvidia-smi") is None:
        parser.error("nvidia-smi is not on the PATH, and tells the use of the GPUs: add its folder")
    return asked


def main(given: Sequence[str] | None = None) -> None:
    asked = arguments_of(given)
    plans, work = plans_name_of(asked.size, RECOMMENDED), asked.work.absolute()
    parts, file = parts_of(asked, plans), work / "measured.json"
    wanted = {"both": parts, "row": parts[1:], "at-once": parts[:1]}[asked.part]
    left = [part for part in wanted if part.command not in read_measured(file)]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        if left:
            measure_parts(left, work, asked)
    except KeyboardInterrupt:
        raise SystemExit(f"ended; what was measured is in {file}, and the same command goes on") from None
    measured = summed(parts, read_measured(file))
    where = f"{asked.at_once} steps" if asked.at_once else f"{asked.gpus} GPUs, {asked.per_gpu} steps on each"
    epochs = f"{asked.epochs} epoch{'s' * (asked.epochs > 1)}"
    what = f"{len(asked.folds)} folds of data set {asked.dataset}, {asked.configuration}, {epochs}"
    device = device_name(torch.device("cpu" if asked.at_once else "cuda"))
    show(measured, f"{what}; {where}; {device}")
    if len(measured) < 2:
        print(f"{AT_ONCE if ROW in measured else ROW} is not measured yet: call this again without --part")
        return
    figures = figures_of(measured, what, f"{plans}, {where}")
    if asked.json is not None:
        write_json(asked.json, figures)
    if asked.csv is not None:
        add_figures(asked.csv, device, figures)


if __name__ == "__main__":
    main()
