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
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import results
from rich.console import Console
from rich.table import Table
from timing import add_csv, device_name

STARTED = "SLICEMAMBA_BENCHMARK_STARTED"
CORES_PER_GPU = 16
STOCK_PLANS = "nnUNetPlans"


@dataclass(frozen=True)
class Network:
    """A row's network. label: in the table. plans: their name. options: of `slicemamba plan`; None for nnU-Net's own.
    trainer: by which it trains, beside nnU-Net's own for its own. compiled: whether nnU-Net's torch.compile is on."""

    label: str
    plans: str
    options: tuple[str, ...] | None
    trainer: str
    compiled: bool

    def trainer_class(self, side: str) -> Any:
        """The trainer where augmentation is on one side, cpu or gpu."""
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

        from nnunetv2_slicemamba.trainers import TRAINERS

        return nnUNetTrainer if self.options is None and side == "cpu" else TRAINERS[self.trainer]


STOCK = Network("nnU-Net, compiled", STOCK_PLANS, None, "nnUNetTrainerGPUAugment", True)
EAGER = Network("nnU-Net, not compiled", STOCK_PLANS, None, "nnUNetTrainerGPUAugment", False)
HYBRID_L = Network("hybrid L", "nnUNetSliceMambaHybridPlans", ("--size", "L", "--hybrid"), "SliceMambaTrainer", False)
SUPERNET_L = Network("supernet of hybrid L", HYBRID_L.plans, HYBRID_L.options, "SliceMambaSupernetTrainer", False)
SEVERAL_GPUS = ("isic2017", (HYBRID_L, SUPERNET_L))
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


def plans_of(data: DataSet, network: Network, times: int) -> dict[str, Any]:
    """A network's plans, with `times` the data set's batch."""
    file = Path(os.environ["nnUNet_preprocessed"]) / data.folder / f"{network.plans}.json"
    plans = json.loads(file.read_text()) | {"continue_training": False}
    plans["configurations"][data.configuration]["batch_size"] = times * data.batch
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


def train(data: DataSet, network: Network, side: str, times: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Trains in this process, with `times` the data set's batch, and measures."""
    import torch

    from nnunetv2_slicemamba.augmentation.device_batches import DeviceBatches

    torch.set_num_threads(1)
    iterations = asked.iterations
    base = network.trainer_class(side)
    begin = float(os.environ.get(STARTED, "nan"))
    measured: dict[str, Any] = {"cpu": [], "imported": time.time() - begin}

    class Measured(base):
        def _use_slicing_file(self) -> None:
            """All slicings take as long: the network's first one will do."""

        def initialize(self) -> None:
            super().initialize()
            measured["initialized"] = time.time() - begin

        def on_epoch_start(self) -> None:
            super().on_epoch_start()
            measured.setdefault("loading", time.time() - begin)
            measured["cpu"].append(cpu_seconds())

        def train_step(self, batch: dict) -> dict:
            result = super().train_step(batch)
            if "first" not in measured:
                measured["first"] = time.time() - begin
            measured["batch"] = batch
            return result

        def on_train_end(self) -> None:
            measured["cpu"].append(cpu_seconds())
            self.network.train()
            measured["step"] = median_ms(lambda: self.train_step(measured["batch"]), min(50, iterations))
            super().on_train_end()

    description = json.loads((Path(os.environ["nnUNet_preprocessed"]) / data.folder / "dataset.json").read_text())
    plans, device = plans_of(data, network, times), torch.device(asked.device)
    trainer = Measured(plans, data.configuration, 0, description, device)
    trainer.num_epochs, trainer.disable_checkpointing = asked.epochs, True
    trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = iterations, max(1, iterations // 5)
    torch.backends.cudnn.benchmark = True  # as nnUNetv2_train sets it
    trainer.run_training()
    values = [trainer.logger.get_value(f"epoch_{edge}_timestamps", step=None) for edge in ("end", "start")]
    lengths = [end - start for end, start in zip(*values, strict=True)]
    per_epoch = [b - a for a, b in zip(measured["cpu"][:-1], measured["cpu"][1:], strict=True)]
    row = {
        "epoch": statistics.median(lengths[1:]),
        "step": measured["step"],
        **{mark: measured[mark] for mark in ("imported", "initialized", "loading", "first")},
        "cpu": statistics.median(per_epoch[1:]),
        "epochs": lengths,
        "device": device_name(device),
        "patch": list(trainer.configuration_manager.patch_size),
        "per_image": 1e3 * statistics.median(lengths[1:]) / (iterations * times * data.batch),
        "loss": float(trainer.logger.get_value("train_losses", step=None)[-1]),
    }
    if not trainer.is_ddp and isinstance(trainer.dataloader_train, DeviceBatches):
        row |= augmentation(trainer.dataloader_train)
    return row


def train_rank(
    rank: int, gpus: int, port: int, data: DataSet, network: Network, file: str, asked: argparse.Namespace
) -> None:
    """One of several processes of a training, each with a GPU and cores of its own; the first one writes its row."""
    import torch

    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[rank * CORES_PER_GPU : (rank + 1) * CORES_PER_GPU] or allowed)
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.cuda.set_device(rank)
    torch.distributed.init_process_group("nccl", rank=rank, world_size=gpus)
    row = train(data, network, "gpu", gpus, asked)
    if rank == 0:
        Path(file).write_text(json.dumps(row))
    torch.distributed.destroy_process_group()


def train_on_several(data: DataSet, network: Network, gpus: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Trains with a process on each of several GPUs, as nnUNetv2_train -num_gpus does, and measures."""
    import torch.multiprocessing
    from nnunetv2.run.run_training import find_free_network_port

    with tempfile.NamedTemporaryFile() as file:
        arguments = (gpus, find_free_network_port(), data, network, file.name, asked)
        torch.multiprocessing.spawn(train_rank, args=arguments, nprocs=gpus)
        return json.loads(Path(file.name).read_text())


def median_ms(call: Any, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def augmentation(batches: Any, repeats: int = 100) -> dict[str, float]:
    """Augmentation alone of the last patches that were read: ms of the GPU and of the host, and memory in MiB.

    Both times include the copies to the GPU, not the draws, which other processes make.
    """
    import numpy as np
    import torch

    from nnunetv2_slicemamba.augmentation import Batch
    from nnunetv2_slicemamba.augmentation.recorded import RecordedPolicy

    slot, device, layout = batches.slots[0], batches.device, batches.layout
    if batches.recorded is None:
        return {}
    batches.recorded = None
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    recorded = RecordedPolicy(batches.policy, Batch(slot.data, slot.seg), layout, device)
    pinned = [tensor.pin_memory() for tensor in slot.tensors]
    on_gpu, on_host = [], []
    for seed in range(repeats + 10):
        layout.write(batches.policy.arrays(tuple(slot.data.shape), np.random.SeedSequence(seed)), pinned[-1].numpy())
        torch.cuda.synchronize()
        edges = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        start = time.perf_counter()
        edges[0].record()
        recorded.load(*pinned)
        recorded()
        edges[1].record()
        on_host.append(1e3 * (time.perf_counter() - start))
        torch.cuda.synchronize()
        on_gpu.append(edges[0].elapsed_time(edges[1]))
    torch.cuda.empty_cache()
    return {
        "augment_ms": statistics.median(on_gpu[10:]),
        "augment_host_ms": statistics.median(on_host[10:]),
        "augment_ms_most": max(on_gpu[10:]),
        "memory": (torch.cuda.memory_reserved() - before) / 2**20,
    }


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
