"""How accurate are SliceMamba's trainings beside nnU-Net's own networks at equal budget, and what would change it?

    python benchmarks/accuracy.py list
    python benchmarks/accuracy.py run --data isic2017=DIR hippocampus=DIR --runs NAME[,NAME...] --work DIR --out DIR
    python benchmarks/accuracy.py table [--out DIR] [--keep]

`run` lays out the data (isic2017: the official folders, hippocampus: Task04's imagesTr and labelsTr), plans and
preprocesses once, and trains and validates every run named (fold 0, or the one that the name tells), `--parallel` at a
time, until `--seconds` are over; `--gpus 2` spreads them over two GPUs of the machine. The same command goes on where
it stopped: what lies in --work is continued, what has a finished result in --out or in benchmarks/accuracy_results is
skipped. Every run that was started leaves NAME.json in --out. `table` shows them all and writes them into accuracy.md;
--keep copies those of --out to benchmarks/accuracy_results.

To try it on a CPU: --device cpu --trial 1x2 (epochs x iterations; such results are in no table).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accuracy_checkpoints import discard, pack, unpack
from accuracy_list import CANDIDATES
from accuracy_prepare import planning_order
from accuracy_results import KEPT, RunFolder, is_finished, read_results, result_of, write_result
from accuracy_runs import DATASETS, Candidate, Run, find_run, read_candidates
from accuracy_schedule import FAILED, GRACE, NOT_STARTED, Job, Outcome, failure, run_jobs
from accuracy_table import PAGE, rich_table, write_page
from rich.console import Console
from rich.table import Table

from nnunetv2_slicemamba.common.commands import environment
from nnunetv2_slicemamba.slicing.find import SLICING_VARIABLE

HERE = Path(__file__).resolve().parent
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed")
VISIBLE = "CUDA_VISIBLE_DEVICES"


def folders(work: Path, processes: int) -> dict[str, str]:
    """Environment variables of every process."""
    found = [str(HERE), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    workers = str(max(1, processes))
    return {
        **{name: str(work / name) for name in FOLDERS},
        "nnUNet_extTrainer": os.pathsep.join(
            [environment()["nnUNet_extTrainer"], str(HERE / "accuracy_ext")],
        ),
        "nnUNet_def_n_proc": workers,
        # two thirds of them train at a time, the others validate
        "nnUNet_n_proc_DA": str(max(1, processes - 2)),
        "PYTHONPATH": os.pathsep.join(found),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }


def preparation(key: str, source: Path, runs: Sequence[Run], work: Path, processes: int) -> Job:
    """The job that prepares a dataset for these runs."""
    folder = work / "prepare"
    folder.mkdir(parents=True, exist_ok=True)
    # earlier failures are no reason to fail now
    (folder / f"{key}.report.json").unlink(missing_ok=True)
    order = {
        "key": key,
        "source": str(source.resolve()),
        "processes": processes,
        "runs": [planning_order(run) for run in runs],
        "report": str(folder / f"{key}.report.json"),
    }
    file = folder / f"{key}.order.json"
    file.write_text(json.dumps(order))
    variables = {**folders(work, processes), "nnUNet_results": str(work / "nnUNet_results")}
    (work / "nnUNet_results").mkdir(exist_ok=True)
    call = [sys.executable, str(HERE / "accuracy_prepare.py"), str(file)]
    return Job(f"prepare {key}", call, folder / f"{key}.log", variables, counted=False)


def training(
    folder: RunFolder, work: Path, processes: int, device: str, trial: Sequence[int] | None, chosen: Chosen
) -> Job:
    """The job that trains and validates, or goes on with it."""
    run = folder.run
    folder.results.mkdir(parents=True, exist_ok=True)
    order = {
        "dataset": run.dataset.folder,
        "configuration": run.dataset.configuration,
        "trainer": run.candidate.trainer,
        "plans": run.plans_name,
        "fold": run.fold,
        "device": device,
        "slicing": run.slicing,
        "flags": (flags := folder.flags()),
        "state": str(folder.state),
        "trial": trial,
        "search": run.candidate.is_supernet,
    }
    if not flags:  # of an attempt that left nothing to go on from
        folder.state.unlink(missing_ok=True)
    file = folder.root / "order.json"
    file.write_text(json.dumps(order))
    return Job(
        run.name,
        [sys.executable, str(HERE / "accuracy_launch.py"), str(file)],
        folder.log,
        {**folders(work, processes), "nnUNet_results": str(folder.results), **chosen.variables},
        (f"prepare {run.dataset.key}", *chosen.after),
        # one that goes on needs less, nobody knows how much less
        seconds=0.0 if trial or flags else run.seconds,
        state=folder.state,
    )


@dataclass(frozen=True)
class Chosen:
    """Where a run gets a supernet's slicing from. variables: of its process. after: the run that it waits for."""

    variables: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()


def shares(runs: Sequence[Run], cores: int, parallel: int) -> dict[str, int]:
    """CPU cores of each run: as its batches need them, beside an average one in each of the other places."""
    mean = sum(one.dataset.work for one in runs) / max(1, len(runs))
    return {one.name: max(1, min(cores, round(cores * one.dataset.work / (mean * parallel)))) for one in runs}


def supernets_for(
    left: Sequence[Run], candidates: Mapping[str, Candidate], finished: Mapping[str, Any], runs: Path
) -> dict[str, Chosen]:
    """By name of those runs that need one, and are not just to be continued.

    One of `left`, which is trained before, or that in the folder `runs`, else the slicing that a finished result tells.
    ValueError naming what is missing.
    """
    found, problems = dict[str, Chosen](), []
    for one in left:
        supernet = one.supernet(candidates)
        if supernet is None or RunFolder(one, runs / one.name).flags():
            continue
        folder = RunFolder(supernet, runs / supernet.name)
        result = finished.get(supernet.name, {})
        if supernet in left:
            found[one.name] = Chosen({SLICING_VARIABLE: str(folder.slicing_file)}, (supernet.name,))
        elif folder.search() is not None:
            found[one.name] = Chosen({SLICING_VARIABLE: str(folder.slicing_file)})
        elif result.get("search") and not one.candidate.inherits:
            file = runs / "slicings" / f"{supernet.name}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(result["search"]))
            found[one.name] = Chosen({SLICING_VARIABLE: str(file)})
        else:
            what = "the weights" if one.candidate.inherits else "the search"
            problems.append(f"{one.name} needs {what} of {supernet.name}: name both in --runs")
    if problems:
        raise ValueError("; ".join(problems))
    return found


def gpu_places(gpus: int, parallel: int) -> list[dict[str, str]] | None:
    """Environment variables of each of the places, which give the GPUs one after the other; None for one GPU.

    Of those in CUDA_VISIBLE_DEVICES, if it is set; ValueError if it lists too few.
    """
    if gpus == 1:
        return None
    set_to = os.environ.get(VISIBLE)
    names = [str(i) for i in range(gpus)] if set_to is None else [name for name in set_to.split(",") if name.strip()]
    if len(names) < gpus:
        raise ValueError(f"--gpus {gpus}: {VISIBLE}={set_to} has fewer; give more there or unset it")
    return [{VISIBLE: names[i % gpus].strip()} for i in range(parallel)]


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Exit code: 0 if every run named is finished now or was before."""
    began = time.monotonic()
    places = gpu_places(arguments.gpus, arguments.parallel)
    candidates = known_candidates(arguments.candidates)
    found = [find_run(name, candidates) for name in arguments.runs.split(",")]
    wanted = list({one.name: one for one in found}.values())  # isic2017-fold0-m is isic2017-m
    sources = read_sources(arguments.data)
    lacking = [f"{key}=DIR" for key in dict.fromkeys(r.dataset.key for r in wanted) if key not in sources]
    if lacking:
        raise ValueError(f"--data lacks {' '.join(lacking)}")
    work, out, trial = arguments.work.resolve(), arguments.out.resolve(), arguments.trial
    for name in FOLDERS:
        (work / name).mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    known = read_results([KEPT, out])
    left = [one for one in wanted if not is_finished(known.get(one.name), trial)]
    runs = work / ("trial_" + "x".join(map(str, trial)) if trial else "runs")
    # weights that were not kept are made again
    heirs = [one.supernet(candidates) for one in left if one.candidate.inherits]
    left = [one for one in wanted if one in left or (one in heirs and not RunFolder(one, runs / one.name).search())]
    for one in wanted:
        if one not in left:
            console.print(f"{one.name}: finished before, Dice {known[one.name]['dice']['mean']:.4f}", highlight=False)
    cores = os.cpu_count() or 1
    cores_of = shares(left, cores, arguments.parallel)
    folder_of = {one.name: RunFolder(one, runs / one.name) for one in left}
    for folder in folder_of.values():
        if unpack(folder, (out, KEPT)):
            console.print(f"{folder.run.name}: unpacked")
    finished = {name: result for name, result in known.items() if is_finished(result, trial)}
    chosen = supernets_for(left, candidates, finished, runs)
    keys = list(dict.fromkeys(one.dataset.key for one in left))
    shared = max(1, cores // max(1, len(keys)))
    jobs = [
        preparation(key, sources[key], [one for one in left if one.dataset.key == key], work, shared) for key in keys
    ]
    jobs += [
        training(folder_of[one.name], work, cores_of[one.name], arguments.device, trial, chosen.get(one.name, Chosen()))
        for one in left
    ]

    def keep(outcome: Outcome) -> None:
        folder = folder_of.get(outcome.name)
        if folder is None:
            if outcome.ended == FAILED:
                console.print(*failure(work / "prepare" / f"{outcome.name.split()[1]}.log"), sep="\n", markup=False)
            return
        if outcome.ended == NOT_STARTED:
            return
        result = result_of(folder, outcome, arguments.parallel, arguments.gpus, trial)
        reason = planning_failure(work, folder.run)
        if result["state"] == "failed" and reason:
            result["failure"] = [reason]
        write_result(result, out)
        if result["state"] == "finished":
            discard(folder, out)
            console.print(f"  Dice {result['dice']['mean']:.4f}", highlight=False)
        elif result["state"] == "failed":
            console.print(*result["failure"][-4:], sep="\n", markup=False, highlight=False)
        if result["state"] == "unfinished" and arguments.pack_mib:
            parts = pack(folder, out, arguments.pack_mib * 2**20)
            console.print(f"  packed into {len(parts)} files" if parts else "  not packed: no checkpoint, or too large")

    run_jobs(jobs, arguments.parallel, began + arguments.seconds, console, keep, arguments.every, places)
    now = read_results([KEPT, out])
    unfinished = [one.name for one in wanted if not is_finished(now.get(one.name), trial)]
    console.print(f"finished: {len(wanted) - len(unfinished)} of {len(wanted)}", highlight=False)
    if unfinished:
        console.print(f"to do: {','.join(unfinished)}", highlight=False, soft_wrap=True)
    return int(bool(unfinished))


def planning_failure(work: Path, run: Run) -> str | None:
    """Why the plans of a run could not be made, if that is so."""
    report = work / "prepare" / f"{run.dataset.key}.report.json"
    if not report.is_file():
        return " | ".join(failure(report.with_name(f"{run.dataset.key}.log"))[-1:])
    failed = json.loads(report.read_text())["failed"]
    reason = failed.get(run.plans_name)
    return f"no plans {run.plans_name}: {reason}" if reason else None


def read_sources(given: Sequence[str]) -> dict[str, Path]:
    """--data's values; ValueError for a dataset that does not exist and for a folder that is not there."""
    found = {}
    for value in given:
        key, _, folder = value.partition("=")
        if key not in DATASETS or not Path(folder).is_dir():
            raise ValueError(f"--data {value}: give {' or '.join(f'{key}=FOLDER' for key in DATASETS)}")
        found[key] = Path(folder)
    return found


def known_candidates(file: Path | None) -> Mapping[str, Candidate]:
    """Candidates by name, those of a file among them; ValueError if it gives a known name another meaning."""
    candidates = {candidate.name: candidate for candidate in CANDIDATES}
    for candidate in read_candidates(file) if file else ():
        if candidate.name in candidates:
            raise ValueError(f"{file}: there is a candidate {candidate.name!r} already; give this one another name")
        candidates[candidate.name] = candidate
    return candidates


def table(arguments: argparse.Namespace, console: Console) -> int:
    if arguments.keep and arguments.out is not None:
        for result in read_results([arguments.out]).values():
            if not result.get("trial"):
                KEPT.mkdir(exist_ok=True)
                shutil.copyfile(arguments.out / f"{result['name']}.json", KEPT / f"{result['name']}.json")
    results = read_results([KEPT, *([arguments.out] if arguments.out else [])])
    console.print(rich_table(results))
    write_page(results, arguments.page)
    console.print(f"written to {arguments.page}", highlight=False, soft_wrap=True)
    return 0


def show(arguments: argparse.Namespace, console: Console) -> int:
    shown = Table("candidate", "plans", "trainer", "slicing", "changes", "prediction")
    for candidate in known_candidates(arguments.candidates).values():
        changes = ", ".join(f"{key} {value}" for key, value in candidate.changes.items())
        plans = candidate.plans.plans_name
        shown.add_row(candidate.name, plans, candidate.trainer, candidate.slicing, changes, candidate.prediction)
    console.print(shown)
    names = "DATASET-CANDIDATE, of fold 1 DATASET-fold1-CANDIDATE"
    console.print(f"runs are named {names}; datasets: {', '.join(DATASETS)}", highlight=False)
    return 0


def trial(value: str) -> list[int]:
    epochs, _, iterations = value.partition("x")
    numbers = [int(epochs), int(iterations)]
    if min(numbers) < 1:
        raise ValueError(value)
    return numbers


def parse(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run", help="trains and validates")
    running.set_defaults(function=run)
    running.add_argument("--data", nargs="+", default=[], metavar="DATASET=DIR", help="folders of the images")
    running.add_argument("--runs", required=True, help="names, by commas; see list")
    running.add_argument("--parallel", type=int, default=2, help="trainings at a time")
    running.add_argument("--gpus", type=int, default=1, help="GPUs of this machine that the trainings are spread over")
    running.add_argument("--seconds", type=float, default=560.0, help="after which everything is stopped")
    running.add_argument("--work", type=Path, required=True, help="folder for data and trainings")
    running.add_argument("--out", type=Path, required=True, help="folder for results")
    running.add_argument("--pack-mib", type=int, default=0, help="pack an unfinished run into --out if it is no larger")
    running.add_argument("--device", default="cuda")
    running.add_argument("--every", type=float, default=60.0, help="seconds between two lines on a run")
    running.add_argument("--trial", type=trial, default=None, metavar="EPOCHSxITERATIONS", help="to try it out")
    tabling = commands.add_parser("table", help="shows all results and writes accuracy.md")
    tabling.set_defaults(function=table)
    tabling.add_argument("--out", type=Path, default=None, help="results beside those in accuracy_results")
    tabling.add_argument("--keep", action="store_true", help="copy the results of --out to accuracy_results")
    tabling.add_argument("--page", type=Path, default=PAGE)
    listing = commands.add_parser("list", help="shows what can be run")
    listing.set_defaults(function=show)
    for one in (running, listing):
        one.add_argument("--candidates", type=Path, default=None, help="further ones: a JSON list of their fields")
    arguments = parser.parse_args(given)
    if getattr(arguments, "parallel", 1) < 1 or getattr(arguments, "seconds", GRACE + 1) <= GRACE:
        parser.error(f"--parallel must be at least 1 and --seconds more than {GRACE:.0f}")
    gpus = getattr(arguments, "gpus", 1)
    if gpus != 1 and not (1 < gpus <= arguments.parallel and arguments.device == "cuda"):
        parser.error(f"--gpus must be 1 to --parallel, {arguments.parallel}, and 1 without --device cuda; it is {gpus}")
    return arguments


def main(given: Sequence[str] | None = None) -> int:
    arguments = parse(given)
    console = Console(width=None if sys.stdout.isatty() else 200)
    try:
        return arguments.function(arguments, console)
    except ValueError as error:
        console.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:  # what ran is stopped and recorded by now
        return 130


if __name__ == "__main__":
    sys.exit(main())
