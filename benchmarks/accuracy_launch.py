"""One training and its validation by nnU-Net's own command, with notes on how it goes: `accuracy_launch.py ORDER.json`.

ORDER.json: {"dataset", "configuration", "trainer", "plans", "fold", "device", "slicing" (or null), "flags" (--c, --val
or none), "state" (the file of the notes), "trial" (null, or [epochs, iterations]), "search" (whether it is a supernet,
to be searched afterwards)}. The notes are written after every epoch: they tell who waits how far it is, and hold what
no file of nnU-Net's holds.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SAVE_EVERY = 5
INTERRUPTED = 130


class Notes:
    """What is known of the training, in a file that is replaced as a whole."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.content: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}

    def write(self, **values: Any) -> None:
        self.content.update(values)
        temporary = self.file.with_suffix(".part")
        temporary.write_text(json.dumps(self.content))
        os.replace(temporary, self.file)

    def highest(self, memory: dict[str, float]) -> dict[str, float]:
        """With a continued training's earlier peak."""
        before = self.content.get("peak_memory_mib") or {}
        return {key: max(value, before.get(key, 0.0)) for key, value in memory.items()}


def peak_memory(device: Any) -> dict[str, float]:
    """Peaks of PyTorch's allocator in this process in MiB; nothing on a CPU."""
    import torch

    if device.type != "cuda":
        return {}
    return {
        "reserved": torch.cuda.max_memory_reserved(device) / 2**20,
        "allocated": torch.cuda.max_memory_allocated(device) / 2**20,
    }


def facts(trainer: Any) -> dict[str, Any]:
    """What was trained with what, once the network is built."""
    import torch
    from torch._dynamo import OptimizedModule

    settings = trainer.configuration_manager
    on_gpu = trainer.device.type == "cuda"
    return {
        "epochs": trainer.num_epochs,
        "iterations_per_epoch": trainer.num_iterations_per_epoch,
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        # that of a supernet's plans is the one it makes
        "network": type(getattr(trainer.network, "_orig_mod", trainer.network)).__name__,
        "patch_size": [int(size) for size in settings.patch_size],
        "batch_size": int(settings.batch_size),
        "compiled": isinstance(trainer.network, OptimizedModule),
        "gpu": torch.cuda.get_device_name(trainer.device) if on_gpu else f"none ({platform.machine()} CPU)",
        "augmentation_processes": int(os.environ["nnUNet_n_proc_DA"]),
        "labels": trainer.dataset_json["labels"],
        "versions": {"python": platform.python_version(), **versions("torch", "nnunetv2", "nnunetv2-slicemamba")},
    }


def versions(*distributions: str) -> dict[str, str]:
    found = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed, from a folder"
    return found


def progress(trainer: Any) -> dict[str, Any]:
    """What nnU-Net's logger has of the epochs so far; a continued training's begins with the first."""

    def logged(key: str) -> list[Any]:
        return list(trainer.logger.get_value(key, None))

    ends = logged("epoch_end_timestamps")
    starts = logged("epoch_start_timestamps")[: len(ends)]
    return {
        "phase": "training",
        "epochs_done": len(ends),
        "pseudo_dice": [float(value) for value in logged("mean_fg_dice")[: len(ends)]],
        "train_losses": [float(value) for value in logged("train_losses")[: len(ends)]],
        "val_losses": [float(value) for value in logged("val_losses")[: len(ends)]],
        "epoch_seconds": [end - start for start, end in zip(starts, ends, strict=True)],
    }


def watch(notes: Notes, trial: list[int] | None) -> None:
    """Wraps the methods of nnU-Net's trainer, so that it holds for its own trainers and for ours."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    build, end_epoch = nnUNetTrainer.initialize, nnUNetTrainer.on_epoch_end
    validate, save = nnUNetTrainer.perform_actual_validation, nnUNetTrainer.save_checkpoint

    @functools.wraps(build)
    def initialize(self: Any) -> None:
        self.save_every = SAVE_EVERY
        if trial is not None:
            self.num_epochs, self.num_iterations_per_epoch = trial
            self.num_val_iterations_per_epoch = 1
        build(self)
        notes.write(phase="training", **facts(self))

    @functools.wraps(end_epoch)
    def on_epoch_end(self: Any) -> None:
        end_epoch(self)
        notes.write(**progress(self), peak_memory_mib=notes.highest(peak_memory(self.device)))

    @functools.wraps(validate)
    def perform_actual_validation(self: Any, *args: Any, **kwargs: Any) -> None:
        # peaks of the training, which decide what GPU is needed, end here
        notes.write(phase="validation")
        validate(self, *args, **kwargs)
        notes.write(phase="validated")

    @functools.wraps(save)
    def save_checkpoint(self: Any, filename: str) -> None:
        # nnU-Net writes in place: stopped while writing, it would leave nothing to go on from
        save(self, f"{filename}.part")
        if os.path.isfile(f"{filename}.part"):
            os.replace(f"{filename}.part", filename)

    for method in (initialize, on_epoch_end, perform_actual_validation, save_checkpoint):
        setattr(nnUNetTrainer, method.__name__, method)


def set_slicing(order: dict[str, Any]) -> None:
    """As `slicemamba slicing --set`, in the results folder of this run; a continued training has it already."""
    from nnunetv2_slicemamba.common.names import DEFAULT_SUPERNET_TRAINER
    from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
    from nnunetv2_slicemamba.planning.selection import select
    from nnunetv2_slicemamba.search.choosing.set_slicing import set_slicing

    selection = select(order["dataset"], order["configuration"], str(order["fold"]), order["plans"])
    file, choice = set_slicing(SupernetFolder(selection, DEFAULT_SUPERNET_TRAINER), order["slicing"])
    print(f"slicing of {len(choice.slicing)} blocks ({choice.how_chosen}) in {file}", flush=True)


def search(order: dict[str, Any]) -> None:
    """`slicemamba search` with its default settings, in a process with the GPU's memory for itself."""
    options = ("-d", order["dataset"], "-c", order["configuration"], "-f", str(order["fold"]), "-p", order["plans"])
    few = ("--population", "2", "--generations", "1", "--parents", "1") if order["trial"] is not None else ()
    command = ["search", *options, "-tr", order["trainer"], "-device", order["device"], *few]
    print("$ slicemamba", *command, flush=True)
    subprocess.run([sys.executable, "-m", "nnunetv2_slicemamba", *command], check=True)


def main(order: dict[str, Any]) -> None:
    notes = Notes(Path(order["state"]))
    notes.write(phase="starting")
    plans = Path(os.environ["nnUNet_preprocessed"]) / order["dataset"] / f"{order['plans']}.json"
    if not plans.is_file():
        sys.exit(f"there is no {plans}")
    if order["slicing"] is not None and not order["flags"]:
        set_slicing(order)
    watch(notes, order["trial"])
    from nnunetv2.run.run_training import run_training_entry

    sys.argv = [
        "nnUNetv2_train",
        *(order["dataset"], order["configuration"], str(order["fold"])),
        *("-tr", order["trainer"], "-p", order["plans"], "-device", order["device"]),
        *order["flags"],
    ]
    print("$", *sys.argv, flush=True)
    run_training_entry()
    if order["search"]:
        notes.write(phase="search")
        began = time.monotonic()
        search(order)
        notes.write(search_seconds=time.monotonic() - began)
    notes.write(phase="done")


if __name__ == "__main__":
    # shells start what runs in the background with interrupts ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main(json.loads(Path(sys.argv[1]).read_text()))
    except KeyboardInterrupt:
        # nnU-Net's workers would be waited for; whoever interrupts ends the whole group of processes
        print("interrupted", flush=True)
        os._exit(INTERRUPTED)
