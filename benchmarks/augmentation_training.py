"""A training of augmentation_gpu.py, in a process of its own: what is trained, and what is measured of it."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timing import device_name

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
OURS = Network("recommended", "nnUNetSliceMambaResidualPlans", ("--network", "residual"), "SliceMambaTrainer", False)
SUPERNET = Network("its supernet", OURS.plans, OURS.options, "SliceMambaSupernetTrainer", False)
SEVERAL_GPUS = ("isic2017", (OURS, SUPERNET))


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
    "isic2017": DataSet("Dataset711_isic2017", "2d", 20, (STOCK, EAGER, OURS)),
    "hippocampus": DataSet("Dataset715_hippocampus", "3d_fullres", 2, (STOCK, EAGER, OURS)),
    "acdc": DataSet("Dataset714_acdc", "3d_fullres", 2, (STOCK, EAGER, OURS)),
}


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
