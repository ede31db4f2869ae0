"""Epochs of trainings that augment on the CPU and on the GPU, nnU-Net's network and ours, with many cores and with few.

    python benchmarks/augmentation_gpu.py [--sets isic2017 hippocampus acdc] [--cores 16 4] [--epochs 5] [--json FILE]
    python benchmarks/augmentation_gpu.py --gpus 2 [--epochs 3] [--json FILE]

Needs nnU-Net's three folders, with the data sets laid out as raw data with their splits (Dataset711_isic2017,
Dataset714_acdc, Dataset715_hippocampus); what is not planned and preprocessed is first. Each row is a training of its
own process, bound to some cores by taskset. "epoch" is the median of all epochs but the first one, with validation;
"step" is a training step alone, on one batch over and over; "augment" the augmentation of a batch alone with its copy
to the GPU, as the GPU and as the host see it; "first" from the process's start to the end of its first training step;
"CPU" the seconds that all its processes compute per epoch. nnU-Net's network is trained by nnUNetTrainer where
augmentation is on the CPU, and by nnUNetTrainerGPUAugment where it is on the GPU.

--gpus N compares N GPUs with one that trains with the same batch, N times as large as that of the other rows. Each GPU
has 16 cores. "loss" is the mean training loss of the last epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import results
from augmentation_training import (
    CORES_PER_GPU,
    SETS,
    SEVERAL_GPUS,
    STARTED,
    STOCK_PLANS,
    DataSet,
    Network,
    train,
    train_on_several,
)
from rich.console import Console
from rich.table import Table
from timing import add_csv


def prepare(data: DataSet, network: Network) -> None:
    """Plans and preprocessed data of a data set, and a network's plans, as far as they are missing."""
    folder = Path(os.environ["nnUNet_preprocessed"]) / data.folder
    if not (folder / f"{STOCK_PLANS}.json").is_file():
        processes = str(os.cpu_count())
        entry = (
            "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry as run"
        )
        command = [sys.executable, "-c", f"{entry}; run()", "-d", data.number, "-c", data.configuration]
        subprocess.run([*command, "-np", processes, "-npfp", processes, "--no_pbar"], check=True)
    if not (folder / f"{network.plans}.json").is_file():
        command = [sys.executable, "-m", "nnunetv2_slicemamba", "plan", "-d", data.number, "-c", data.configuration]
        subprocess.run([*command, *(network.options or ())], check=True)


def measure(
    name: str, network: Network, side: str, cores: int, asked: argparse.Namespace, gpus: int = 1, times: int = 1
) -> dict[str, Any]:
    """One row, measured by a process of its own."""
    row = {"set": name, "network": network.label, "augmentation": side, "cores": cores, "gpus": gpus}
    row["batch"] = times * SETS[name].batch
    command = [sys.executable, __file__, "--child", name, network.label, side, str(gpus), str(times)]
    command += ["--epochs", str(asked.epochs), "--iterations", str(asked.iterations), "--device", asked.device]
    with tempfile.TemporaryDirectory() as results:
        environment = os.environ | {
            "nnUNet_results": results,
            "SLICEMAMBA_AUGMENT": side,
            "nnUNet_compile": str(network.compiled).lower(),
            "nnUNet_n_proc_DA": os.environ.get("nnUNet_n_proc_DA", str(max(1, min(12, cores // gpus - 2)))),
            STARTED: str(time.time()),
        }
        allowed = sorted(os.sched_getaffinity(0))[:cores]
        bound = ["taskset", "-c", ",".join(map(str, allowed)), *command]
        done = subprocess.run(bound, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        print(*lines[-20:], sep="\n", file=sys.stderr)
        return row | {"error": f"exit code {done.returncode}"}
    return row | json.loads(lines[-1])


FIGURES = {  # key in a row: figure and unit in timings.csv
    "epoch": ("epoch", "s"),
    "step": ("step alone", "ms"),
    "cpu": ("CPU of all processes per epoch", "s"),
    "first": ("start to first step", "s"),
    "augment_ms": ("augmentation alone", "ms"),
    "memory": ("its memory", "MiB"),
    "per_image": ("per image", "ms"),
    "loss": ("training loss", ""),
}


def figures(row: dict[str, Any]) -> list[tuple[str, str, str, float | None, str]]:
    """A row's figures as timings.csv has them."""
    side, several = row["augmentation"].upper(), f"{row['gpus']} GPUs, " if row["gpus"] > 1 else ""
    work = f"{row['network']}, augmentation on the {side}, {several}{row['cores']} cores"
    size = f"{row['set']}, batch {row['batch']} of {'x'.join(map(str, row.get('patch', [])))}"
    return [
        (work, size, figure, round(row[key], 3 if key == "loss" else 2), unit)
        for key, (figure, unit) in FIGURES.items()
        if key in row
    ]


def print_table(rows: list[dict[str, Any]]) -> None:
    table = Table()
    columns = {
        "epoch": ("epoch s", ".2f"),
        "step": ("step ms", ".1f"),
        "cpu": ("CPU s", ".0f"),
        "first": ("first s", ".1f"),
        "augment_ms": ("augment ms", ".2f"),
        "augment_host_ms": ("host ms", ".2f"),
        "memory": ("MiB", ".0f"),
        "per_image": ("ms an image", ".2f"),
        "loss": ("loss", ".3f"),
    }
    for title in (
        "set",
        "network",
        "augmentation",
        "cores",
        "GPUs",
        "batch",
        *(title for title, _ in columns.values()),
    ):
        table.add_column(title)
    for row in rows:
        first = [str(row[key]) for key in ("set", "network", "augmentation", "cores", "gpus", "batch")]
        values = [format(row[key], how) if key in row else "" for key, (_, how) in columns.items()]
        table.add_row(*first, *([row["error"], *values[1:]] if "error" in row else values))
    Console(width=180).print(table)


def asked_rows(arguments: argparse.Namespace) -> Iterator[tuple[str, Network, dict[str, Any]]]:
    """Data set, network and options of `measure` for every row."""
    several = arguments.gpus
    if several > 1:
        name, networks = SEVERAL_GPUS
        for network in networks:
            for gpus in (1, several):
                cores = gpus * CORES_PER_GPU
                yield name, network, {"side": "gpu", "cores": cores, "gpus": gpus, "times": several}
        return
    for name in arguments.sets:
        for network in SETS[name].networks:
            if arguments.networks and not any(word in network.label for word in arguments.networks):
                continue
            for cores in arguments.cores:
                for side in arguments.sides:
                    yield name, network, {"side": side, "cores": cores}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--cores", nargs="+", type=int, default=[16, 4])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=250, help="of an epoch, with a fifth as many for validation")
    parser.add_argument("--networks", nargs="+", default=None, help="only those with one of these words in the label")
    parser.add_argument("--sides", nargs="+", default=["cpu", "gpu"], choices=["cpu", "gpu"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, default=None)
    add_csv(parser)
    parser.add_argument("--gpus", type=int, default=1, help="compare as many GPUs with one, and nothing else")
    parser.add_argument("--child", nargs=5, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, label, side, gpus, times = arguments.child
        network = next(one for one in (*SETS[name].networks, *SEVERAL_GPUS[1]) if one.label == label)
        if int(gpus) > 1:
            row = train_on_several(SETS[name], network, int(gpus), arguments)
        else:
            row = train(SETS[name], network, side, int(times), arguments)
        print(json.dumps(row))
        return
    rows = []
    for name, network, options in asked_rows(arguments):
        prepare(SETS[name], network)
        rows.append(measure(name, network, asked=arguments, **options))
        print(json.dumps(rows[-1]), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=1))
    print_table(rows)
    rows = [row for row in rows if "error" not in row]
    if arguments.csv is not None and rows:
        measured = [figure for row in rows for figure in figures(row)]
        results.write_timings(arguments.csv, "augmentation_gpu", rows[0]["device"], measured)


if __name__ == "__main__":
    main()
