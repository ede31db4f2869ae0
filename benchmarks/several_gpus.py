"""A training step on several GPUs, part by part, beside one GPU with the whole batch and with one GPU's share of it.

    python benchmarks/several_gpus.py [--gpus 2] [--batch 40] [--supernet] [--csv FOLDER]
    python benchmarks/several_gpus.py --device cpu --tiny       # a dry run with processes on the CPU, by Gloo

Needs no data: the trainer is nnU-Net's for made-up plans of the recommended network, 3x256x256 images, two classes and
Dice over the batch; images are random. Times are medians of the first process in milliseconds, until the device has
done the work and, in brackets, until the host has queued it. A part whose two times are alike waits for the host.

"network" is the forward and the backward pass without the loss, "loss" the loss and its gradients, "averages" the
exchange of the gradients, "update" gradient scaler, clipping and optimiser, "signals" the processes' agreement, after a
step, on whether to stop. "parts" is the sum of these, "step" the trainer's whole step, which can do some of it at once.
"nnU-Net's loss" is the same loss as nnU-Net computes it. Messages follow, all_reduce by their MB and type of number,
with GB/s of the link: 2 (n - 1) / n of the bytes, by the time.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import memory_training
import results
import torch
import torch.multiprocessing
from rich.console import Console
from rich.table import Table
from timing import add_csv, device_name
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_slicemamba.planning.residual import RESIDUAL_CLASS, residual_kwargs
from nnunetv2_slicemamba.trainers import TRAINERS
from nnunetv2_slicemamba.trainers.replicas import AveragingScaler, average_gradients

CORES_PER_GPU = 16
WARM_UPS = 5
MEGABYTES = (16, 64, 159)  # the last one: the recommended network's gradients
PARTS = ("network", "loss", "averages", "update", "signals")
Times = dict[str, tuple[float, float]]


def plans_of(asked: argparse.Namespace, batch: int) -> dict[str, Any]:
    """Plans of the recommended network; with --tiny, of one with two stages for small images."""
    size, stages = (32, 3) if asked.tiny else (256, 7)
    planned = {
        "n_stages": stages,
        "features_per_stage": [min(512, (4 if asked.tiny else 32) * 2**i) for i in range(stages)],
        "strides": [[1, 1], *[[2, 2]] * (stages - 1)],
        "kernel_sizes": [[3, 3]] * stages,
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "norm_op_kwargs": {"eps": 1e-5},
    }
    plans = memory_training.plans_of(memory_training.Shape("S", (size, size), batch, channels=3))
    architecture = {"network_class_name": RESIDUAL_CLASS, "arch_kwargs": residual_kwargs(planned)}
    plans["configurations"]["measured"]["architecture"] |= architecture
    return plans | {"continue_training": False}


def make_trainer(asked: argparse.Namespace, batch: int, device: torch.device) -> Any:
    """The trainer, ready for its first step; one of several if there is a process group."""
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

    class Measured(TRAINERS["SliceMambaSupernetTrainer" if asked.supernet else "SliceMambaTrainer"]):
        def initialize(self) -> None:
            self.device = device  # nnU-Net puts processes on GPUs
            super().initialize()

    if device.type == "cpu":
        module.DDP = lambda network, device_ids: DistributedDataParallel(network)
    plans = plans_of(asked, batch)
    folder = Path(os.environ["nnUNet_preprocessed"]) / plans["dataset_name"] / "measured"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case.b2nd").touch()  # nnU-Net only wants to know how the data are stored
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = Measured(plans, "measured", 0, memory_training.describe(3, 2), device)
        trainer.initialize()
    trainer.network.train()
    trainer.agreement = distributed.new_group(backend="gloo") if trainer.is_ddp else None
    trainer.in_epochs = True
    return trainer


def make_batch(trainer: Any) -> dict[str, Any]:
    """One process's random batch, on its device."""
    whole = memory_training.make_batch(trainer)
    data, targets = whole["data"], whole["target"]
    n, device = trainer.batch_size, trainer.device
    return {"data": data[:n].to(device), "target": [target[:n].to(device) for target in targets]}


def timed(call: Callable[[], object], repeats: int, device: torch.device) -> tuple[float, float]:
    """Median milliseconds of a call, and of queueing it."""
    wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    queued, done = [], []
    for i in range(WARM_UPS + repeats):
        wait()
        start = time.perf_counter()
        call()
        host = time.perf_counter() - start
        wait()
        if i >= WARM_UPS:
            queued.append(1e3 * host)
            done.append(1e3 * (time.perf_counter() - start))
    return statistics.median(done), statistics.median(queued)


def measure_parts(trainer: Any, repeats: int) -> Times:
    """The parts of a step and the whole of it."""
    device, batch, scaler, optimizer = trainer.device, make_batch(trainer), trainer.grad_scaler, trainer.optimizer
    parameters = list(trainer.network.parameters())
    autocast = partial(torch.autocast, device.type, enabled=device.type == "cuda")
    times = {"step": timed(partial(trainer.train_step, batch), repeats, device)}
    with torch.no_grad(), autocast():
        outputs = [output.clone().requires_grad_() for output in trainer.network(batch["data"])]
    grad_outputs, one = [torch.full_like(output, 1e-3) for output in outputs], torch.ones((), device=device)

    def network() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            made = trainer.network(batch["data"])
        torch.autograd.backward(made, grad_outputs)

    def loss(function: Callable[..., Tensor]) -> None:
        with autocast():
            value = function(outputs, batch["target"])
        torch.autograd.grad(value, outputs, allow_unused=True)

    def update() -> None:
        if scaler is not None:
            scaler.scale(one)
            scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, 12)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()

    times["network"] = timed(network, repeats, device)
    times["loss"] = timed(partial(loss, trainer.loss), repeats, device)
    times["nnU-Net's loss"] = timed(partial(loss, trainer._build_loss()), repeats, device)
    if trainer.is_ddp:
        times["averages"] = timed(partial(average_gradients, parameters), repeats, device)
        times["signals"] = timed(trainer.stop_if_asked, repeats, device)
    if isinstance(scaler, AveragingScaler):
        scaler.averaged = []
    times["update"] = timed(update, repeats, device)
    times["parts"] = tuple(sum(times[part][i] for part in PARTS if part in times) for i in range(2))
    return times


def measure_messages(device: torch.device, repeats: int, megabytes: tuple[int, ...]) -> Times:
    """Messages of several processes alone."""
    few = torch.zeros(6, 3, 1, device=device)
    gathered = [torch.zeros_like(few) for _ in range(distributed.get_world_size())]
    times = {"all_gather, 72 bytes": timed(lambda: distributed.all_gather(gathered, few), repeats, device)}
    for dtype in (torch.float32, torch.bfloat16):
        for size in megabytes:
            sent = torch.zeros(size * 10**6 // dtype.itemsize, dtype=dtype, device=device)
            name = f"all_reduce, {size} MB, {str(dtype).removeprefix('torch.')}"
            times[name] = timed(partial(distributed.all_reduce, sent), repeats, device)
    return times


def work(rank: int, processes: int, folder: str, batch: int, asked: argparse.Namespace) -> None:
    """One process of a column; the first one writes its times."""
    device = torch.device("cuda", rank) if asked.device == "cuda" else torch.device("cpu")
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[rank * CORES_PER_GPU : (rank + 1) * CORES_PER_GPU] or allowed)
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True  # as nnUNetv2_train sets it
    if device.type == "cuda":
        torch.cuda.set_device(device)
    memory_training.use_folders(Path(folder))
    if processes > 1:
        store, backend = f"file://{folder}/store{processes}", "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, init_method=store, rank=rank, world_size=processes)
    times = measure_parts(make_trainer(asked, batch, device), asked.repeats)
    if processes > 1:
        times |= measure_messages(device, asked.repeats, (1, 2) if asked.tiny else MEGABYTES)
        distributed.destroy_process_group()
    if rank == 0:
        column = {"processes": processes, "batch": batch, "times": times, "device": device_name(device)}
        Path(folder, "column.json").write_text(json.dumps(column))


def measure(processes: int, batch: int, asked: argparse.Namespace) -> dict[str, Any]:
    """A column: processes, batch of them all, device and times."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, args=(processes, folder, batch, asked), nprocs=processes)
        return json.loads(Path(folder, "column.json").read_text())


def print_table(columns: list[dict[str, Any]], kind: str) -> None:
    table = Table("ms (host)", *(f"{c['processes']} x {c['batch'] // c['processes']}" for c in columns), "link")
    several = columns[-1]
    for part in several["times"]:
        cells = ["{:.2f} ({:.2f})".format(*c["times"][part]) if part in c["times"] else "" for c in columns]
        n, milliseconds, sent = several["processes"], several["times"][part][0], part.startswith("all_reduce")
        rate = f"{2 * (n - 1) / n * int(part.split()[1]) / milliseconds:.1f} GB/s" if sent else ""
        table.add_row(part, *cells, rate)
    console = Console(width=120)
    console.print(table)
    step, whole = (c["times"]["step"][0] for c in (several, columns[1]))
    console.print(f"{kind}: {step / whole:.2f} of one GPU's time per image, with the same batch of {several['batch']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=2, help="or processes on the CPU, at least 2")
    parser.add_argument("--batch", type=int, default=40, help="of all of them")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--supernet", action="store_true")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="a small network and small images")
    add_csv(parser)
    asked = parser.parse_args()
    if asked.device == "cuda":
        subprocess.run(["nvidia-smi", "topo", "-m"], check=False)
    share = asked.batch // asked.gpus
    kinds = (1, share), (1, asked.batch), (asked.gpus, share * asked.gpus)
    columns = [measure(n, batch, asked) for n, batch in kinds]
    kind = "supernet" if asked.supernet else "recommended"
    print_table(columns, kind)
    for c in columns if asked.csv is not None else ():
        name, size = f"{kind}, {c['processes']} GPUs", 32 if asked.tiny else 256
        figures = [
            (name, f"batch {c['batch']} of {size}x{size}", part + mark, round(milliseconds, 2), "ms")
            for part, both in c["times"].items()
            for mark, milliseconds in zip(("", ", host"), both, strict=True)
        ]
        results.write_timings(asked.csv, "several_gpus", c["device"], figures)


if __name__ == "__main__":
    main()
