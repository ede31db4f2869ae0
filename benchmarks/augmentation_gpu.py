"""Epochs of trainings that augment on the CPU and on the GPU, nnU-Net's network and ours, with many cores and with few.

    python benchmarks/augmentation_gpu.py [--sets isic2017 hippocampus acdc] [--cores 16 4] [--epochs 5] [--json FILE]

Needs nnU-Net's three folders, with the data sets laid out as raw data with their splits (Dataset711_isic2017,
Dataset714_acdc, Dataset715_hippocampus); what is not planned and preprocessed is first. Each row is a training of its
own process, bound to some cores by taskset. "epoch" is the median of all epochs but the first one, with validation;
"step" is a training step alone, on one batch over and over; "augment" the augmentation of a batch alone, as the GPU and
as the host see it; "first" from the process's start to the end of its first training step; "CPU" the seconds that all
its processes compute per epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

STARTED = "SLICEMAMBA_BENCHMARK_STARTED"
STOCK_PLANS = "nnUNetPlans"


@dataclass(frozen=True)
class Network:
    """A row's network. label: in the table. plans: their name. options: of `slicemamba plan`; None for nnU-Net's own.
    trainer: by which it trains. compiled: whether nnU-Net's torch.compile is on."""

    label: str
    plans: str
    options: tuple[str, ...] | None
    trainer: str
    compiled: bool


STOCK = Network("nnU-Net, compiled", STOCK_PLANS, None, "nnUNetTrainerGPUAugment", True)
EAGER = Network("nnU-Net, not compiled", STOCK_PLANS, None, "nnUNetTrainerGPUAugment", False)
HYBRID_L = Network("hybrid L", "nnUNetSliceMambaHybridPlans", ("--size", "L", "--hybrid"), "SliceMambaTrainer", False)
HYBRID_M = Network("hybrid M", "nnUNetSliceMambaHybridMPlans", ("--size", "M", "--hybrid"), "SliceMambaTrainer", False)


@dataclass(frozen=True)
class DataSet:
    """A data set: its folder, nnU-Net's configuration, the batch that all its networks train with, and those."""

    folder: str
    configuration: str
    batch: int
    networks: tuple[Network, ...]

    @property
    def number(self) -> str:
        return self.folder[7:10]


SETS = {
    "isic2017": DataSet("Dataset711_isic2017", "2d", 20, (STOCK, EAGER, HYBRID_L)),
    "hippocampus": DataSet("Dataset715_hippocampus", "3d_fullres", 2, (STOCK, EAGER, HYBRID_M)),
    "acdc": DataSet("Dataset714_acdc", "3d_fullres", 2, (STOCK, EAGER)),
}


def prepare(data: DataSet) -> None:
    """Plans and preprocessed data of a data set, as far as they are missing."""
    folder = Path(os.environ["nnUNet_preprocessed"]) / data.folder
    if not (folder / f"{STOCK_PLANS}.json").is_file():
        processes = str(os.cpu_count())
        entry = (
            "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry as run"
        )
        command = [sys.executable, "-c", f"{entry}; run()", "-d", data.number, "-c", data.configuration]
        subprocess.run([*command, "-np", processes, "-npfp", processes, "--no_pbar"], check=True)
    for network in data.networks:
        file = folder / f"{network.plans}.json"
        if not file.is_file():
            command = [sys.executable, "-m", "nnunetv2_slicemamba", "plan", "-d", data.number, "-c", data.configuration]
            subprocess.run([*command, *(network.options or ())], check=True)


def plans_of(data: DataSet, network: Network) -> dict[str, Any]:
    """A network's plans, with the data set's batch."""
    file = Path(os.environ["nnUNet_preprocessed"]) / data.folder / f"{network.plans}.json"
    plans = json.loads(file.read_text()) | {"continue_training": False}
    plans["configurations"][data.configuration]["batch_size"] = data.batch
    return plans


def cpu_seconds() -> float:
    """CPU seconds of this process, its children and theirs so far."""
    parents, seconds = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
            seconds[int(entry.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(seconds[pid] for pid in family)


def train(data: DataSet, network: Network, epochs: int, iterations: int, device: str) -> dict[str, Any]:
    """Trains in this process and measures."""
    import torch

    from nnunetv2_slicemamba.augmentation.device_batches import DeviceBatches
    from nnunetv2_slicemamba.trainers import TRAINERS

    torch.set_num_threads(1)
    base: Any = TRAINERS[network.trainer]
    measured: dict[str, Any] = {"cpu": []}

    class Measured(base):
        def _use_slicing_file(self) -> None:
            """All slicings take as long: the network's first one will do."""

        def on_epoch_start(self) -> None:
            super().on_epoch_start()
            measured["cpu"].append(cpu_seconds())

        def train_step(self, batch: dict) -> dict:
            result = super().train_step(batch)
            if "first" not in measured:
                measured["first"] = time.time() - float(os.environ.get(STARTED, "nan"))
            measured["batch"] = batch
            return result

        def on_train_end(self) -> None:
            measured["cpu"].append(cpu_seconds())
            self.network.train()
            measured["step"] = median_ms(lambda: self.train_step(measured["batch"]), min(50, iterations))
            super().on_train_end()

    description = json.loads((Path(os.environ["nnUNet_preprocessed"]) / data.folder / "dataset.json").read_text())
    trainer = Measured(plans_of(data, network), data.configuration, 0, description, torch.device(device))
    trainer.num_epochs, trainer.disable_checkpointing = epochs, True
    trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = iterations, max(1, iterations // 5)
    torch.backends.cudnn.benchmark = True  # as nnUNetv2_train sets it
    trainer.run_training()
    values = [trainer.logger.get_value(f"epoch_{edge}_timestamps", step=None) for edge in ("end", "start")]
    lengths = [end - start for end, start in zip(*values, strict=True)]
    per_epoch = [b - a for a, b in zip(measured["cpu"][:-1], measured["cpu"][1:], strict=True)]
    row = {
        "epoch": statistics.median(lengths[1:]),
        "step": measured["step"],
        "first": measured["first"],
        "cpu": statistics.median(per_epoch[1:]),
        "epochs": lengths,
        "patch": list(trainer.configuration_manager.patch_size),
    }
    if isinstance(trainer.dataloader_train, DeviceBatches):
        row |= augmentation(trainer.dataloader_train)
    return row


def median_ms(call: Any, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def augmentation(batches: Any, repeats: int = 100) -> dict[str, float]:
    """Augmentation alone of the last patches that were read: ms of the GPU and of the host, peak memory in MiB."""
    import numpy as np
    import torch

    from nnunetv2_slicemamba.augmentation import Batch

    slot, device = batches.slots[0], batches.device
    on_gpu, on_host = [], []
    for seed in range(repeats + 10):
        given = Batch(slot.data.to(device), slot.seg.to(device))
        torch.cuda.synchronize()
        if seed == 10:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        edges = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        start = time.perf_counter()
        edges[0].record()
        batches.policy(given, np.random.SeedSequence([seed]))
        edges[1].record()
        on_host.append(1e3 * (time.perf_counter() - start))
        torch.cuda.synchronize()
        on_gpu.append(edges[0].elapsed_time(edges[1]))
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    return {
        "augment_ms": statistics.median(on_gpu[10:]),
        "augment_host_ms": statistics.median(on_host[10:]),
        "augment_ms_most": max(on_gpu[10:]),
        "memory": peak,
    }


def measure(name: str, network: Network, side: str, cores: int, asked: argparse.Namespace) -> dict[str, Any]:
    """One row, measured by a process of its own."""
    row = {"set": name, "network": network.label, "augmentation": side, "cores": cores}
    command = [sys.executable, __file__, "--child", name, network.label, "--device", asked.device]
    command += ["--epochs", str(asked.epochs), "--iterations", str(asked.iterations)]
    with tempfile.TemporaryDirectory() as results:
        environment = os.environ | {
            "nnUNet_results": results,
            "SLICEMAMBA_AUGMENT": side,
            "nnUNet_compile": str(network.compiled).lower(),
            "nnUNet_n_proc_DA": os.environ.get("nnUNet_n_proc_DA", str(max(1, min(12, cores - 2)))),
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
    }
    for title in ("set", "network", "augmentation", "cores", *(title for title, _ in columns.values())):
        table.add_column(title)
    for row in rows:
        first = [str(row[key]) for key in ("set", "network", "augmentation", "cores")]
        values = [format(row[key], how) if key in row else "" for key, (_, how) in columns.items()]
        table.add_row(*first, *([row["error"], *values[1:]] if "error" in row else values))
    Console(width=150).print(table)


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
    parser.add_argument("--child", nargs=2, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, label = arguments.child
        (network,) = (network for network in SETS[name].networks if network.label == label)
        print(json.dumps(train(SETS[name], network, arguments.epochs, arguments.iterations, arguments.device)))
        return
    rows = []
    for name in arguments.sets:
        prepare(SETS[name])
        for network in SETS[name].networks:
            if arguments.networks and not any(word in network.label for word in arguments.networks):
                continue
            for cores in arguments.cores:
                for side in arguments.sides:
                    rows.append(measure(name, network, side, cores, arguments))
                    print(json.dumps(rows[-1]), flush=True)
                    if arguments.json:
                        arguments.json.write_text(json.dumps(rows, indent=1))
    print_table(rows)


if __name__ == "__main__":
    main()
