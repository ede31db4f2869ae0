"""One training and its validation by nnU-Net's own command, for accuracy.py, with notes on how it goes.

    python benchmarks/accuracy_training.py ORDER.json

ORDER.json has these keys. dataset: name of nnU-Net's folder. source: the folder it comes from. configuration, fold,
trainer, device. planner: command that writes the plans `planned`. plans: those to train with, a copy with `changes`
where the names differ. slicing: for `slicemamba slicing --set`, a candidate for every block with spaces between, or
null. settings: attributes of the trainer. flags:
--c, --val or none. processes: for preprocessing. notes: file of the notes. until: on the clock of time.time; a training
that would not end its next epoch until then writes a checkpoint and exits with OUT_OF_TIME.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from accuracy_data import call, prepare

OUT_OF_TIME = 75
SAVE_EVERY = 10
MIB = 2**20
CURVES = {"pseudo_dice": "mean_fg_dice", "train_loss": "train_losses", "val_loss": "val_losses"}  # ours: nnU-Net's


class Notes:
    """State of a training, in a file that is replaced as a whole."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.content: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}

    def write(self, **values: Any) -> None:
        self.content.update(values)
        temporary = self.file.with_suffix(".part")
        temporary.write_text(json.dumps(self.content))
        os.replace(temporary, self.file)


def facts(trainer: Any) -> dict[str, Any]:
    """Columns of runs.csv that are known once the network is built, and the names of the labels."""
    import torch
    from torch._dynamo import OptimizedModule

    settings, on_gpu = trainer.configuration_manager, trainer.device.type == "cuda"
    gpu = torch.cuda.get_device_name(trainer.device) if on_gpu else f"none ({platform.machine()} CPU)"
    versions = [f"{name} {version(name)}" for name in ("torch", "nnunetv2")]
    columns = {
        # that of a supernet's plans is the one it makes
        "network": type(getattr(trainer.network, "_orig_mod", trainer.network)).__name__,
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "compiled": "yes" if isinstance(trainer.network, OptimizedModule) else "no",
        "batch": int(settings.batch_size),
        "patch": "x".join(str(int(size)) for size in settings.patch_size),
        "gpu": gpu.removeprefix("NVIDIA ").removesuffix(" 80GB HBM3"),
        "augmenters": int(os.environ["nnUNet_n_proc_DA"]),
        "versions": ", ".join([f"python {platform.python_version()}", *versions]),
    }
    return {"columns": columns, "labels": trainer.dataset_json["labels"]}


def progress(trainer: Any) -> dict[str, list[float]]:
    """Seconds, losses and pseudo Dice of every epoch so far; a continued training's begin with the first."""

    def logged(key: str) -> list[float]:
        return [float(value) for value in trainer.logger.get_value(key, None)]

    ends = logged("epoch_end_timestamps")
    starts = logged("epoch_start_timestamps")[: len(ends)]
    return {
        "seconds": [end - start for start, end in zip(starts, ends, strict=True)],
        **{name: logged(key)[: len(ends)] for name, key in CURVES.items()},
    }


def peak_memory(device: Any, before: dict[str, float]) -> dict[str, float]:
    """Peaks of PyTorch's allocator in MiB, those of a continued training's earlier part included; none on a CPU."""
    import torch

    if device.type != "cuda":
        return {}
    now = {"reserved": torch.cuda.max_memory_reserved(device), "allocated": torch.cuda.max_memory_allocated(device)}
    return {key: max(value / MIB, before.get(key, 0.0)) for key, value in now.items()}


def watch(notes: Notes, settings: dict[str, Any], until: float) -> None:
    """Wraps the methods of nnU-Net's trainer, so that it holds for its own trainers and for ours.

    Raises ValueError, as the trainer initialises, for a setting that it lacks.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    build, start_epoch, end_epoch = nnUNetTrainer.initialize, nnUNetTrainer.on_epoch_start, nnUNetTrainer.on_epoch_end
    validate, save = nnUNetTrainer.perform_actual_validation, nnUNetTrainer.save_checkpoint

    @functools.wraps(build)
    def initialize(self: Any) -> None:
        self.save_every = SAVE_EVERY
        for name, value in settings.items():
            if not hasattr(self, name):
                raise ValueError(f"the trainer {type(self).__name__} has no setting {name!r}")
            setattr(self, name, value)
        build(self)
        notes.write(phase="training", **facts(self))

    @functools.wraps(end_epoch)
    def on_epoch_end(self: Any) -> None:
        now = time.time()
        self.is_out_of_time = until - now < 1.2 * (now - self.logger.get_value("epoch_start_timestamps", None)[-1])
        if self.is_out_of_time:
            self.save_every = 1  # a checkpoint of this epoch
        end_epoch(self)
        notes.write(epochs=progress(self), memory=peak_memory(self.device, notes.content.get("memory", {})))

    @functools.wraps(start_epoch)
    def on_epoch_start(self: Any) -> None:
        # not at the end of the epoch before: our trainers write its checkpoint after nnU-Net's part of that
        if getattr(self, "is_out_of_time", False):
            notes.write(phase="out of time")
            # nnU-Net's workers would be waited for; accuracy.py ends the whole group of processes
            os._exit(OUT_OF_TIME)
        start_epoch(self)

    @functools.wraps(validate)
    def perform_actual_validation(self: Any, *args: Any, **kwargs: Any) -> None:
        notes.write(phase="validation")
        validate(self, *args, **kwargs)

    @functools.wraps(save)
    def save_checkpoint(self: Any, filename: str) -> None:
        # nnU-Net writes in place: stopped while writing, it would leave nothing to go on from
        save(self, f"{filename}.part")
        if os.path.isfile(f"{filename}.part"):
            os.replace(f"{filename}.part", filename)

    for method in (initialize, on_epoch_start, on_epoch_end, perform_actual_validation, save_checkpoint):
        setattr(nnUNetTrainer, method.__name__, method)


def slicing_to_set(order: dict[str, Any]) -> str:
    """The value for `slicemamba slicing --set`: a file where every block has a candidate of its own."""
    words = str(order["slicing"]).split()
    if len(words) == 1:
        return words[0]
    from nnunetv2_slicemamba.slicing.candidate_sets import named_candidates
    from nnunetv2_slicemamba.slicing.choice import SlicingChoice
    from nnunetv2_slicemamba.slicing.file import SlicingFile, write_slicing_file

    n_dims = 3 if order["configuration"].startswith("3d") else 2
    choice = SlicingChoice(tuple(chain.from_iterable(named_candidates(one, n_dims) or () for one in words)), "file")
    of = (order["dataset"], order["configuration"], order["plans"], order["fold"])
    file = Path(order["notes"]).with_name("slicing.json")
    write_slicing_file(SlicingFile(choice, (), None, *of, None, None), file)
    return str(file)


def main(order: dict[str, Any]) -> None:
    from nnunetv2.run.run_training import run_training_entry

    notes = Notes(Path(order["notes"]))
    notes.write(phase="preparing")
    prepare(order)
    names = (order["dataset"], order["configuration"], str(order["fold"]))
    if order["slicing"] is not None and not order["flags"]:
        flags = [text for pair in zip(("-d", "-c", "-f"), names, strict=True) for text in pair]
        call(["slicemamba", "slicing", *flags, "-p", order["plans"], "--set", slicing_to_set(order)])
    watch(notes, order["settings"], order["until"])
    options = ("-tr", order["trainer"], "-p", order["plans"], "-device", order["device"])
    sys.argv = ["nnUNetv2_train", *names, *options, *order["flags"]]
    print("$", *sys.argv, flush=True)
    run_training_entry()
    notes.write(phase="done")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
