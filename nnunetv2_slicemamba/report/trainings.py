"""Logs of trainings, as nnU-Net's checkpoints keep them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common import checkpoint_names
from nnunetv2_slicemamba.common.checkpoints import WEIGHTS, CheckpointError, read_training
from nnunetv2_slicemamba.common.names import is_number


@dataclass(frozen=True)
class TrainingProgress:
    """A training's log, read from its checkpoint; every sequence has one number per finished epoch.

    losses and pseudo Dice as nnU-Net logs them (the loss holds minus the soft Dice, so it may be negative), NaN where
    undefined. seconds: duration of an epoch. planned_epochs: None if unknown. parameters: numbers in the network's
    tensors. slicing: (blocks, axes) thicknesses that the weights were trained with, None for other networks.
    started: seconds since 1970, None if no epoch has ended.
    """

    checkpoint: str
    finished: bool
    train_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]
    pseudo_dice: tuple[float, ...]
    seconds: tuple[float, ...]
    started: float | None
    planned_epochs: int | None
    parameters: int
    slicing: tuple[tuple[int, ...], ...] | None
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return len(self.seconds)

    @property
    def machine(self) -> str:
        """Name of the GPU, or the kind of device, as far as nnU-Net wrote it down; empty if not."""
        device = self.versions.get("device", "").partition(":")[0]
        name = self.versions.get("gpu_name", "")
        return name if name not in ("", "None") and device != "cpu" else {"cpu": "a CPU"}.get(device, device)

    @property
    def total_seconds(self) -> float:
        """Time spent in epochs, without the pauses of an interrupted training."""
        return math.fsum(self.seconds)


def newest_checkpoint(fold_folder: Path) -> Path | None:
    """The checkpoint that has seen most epochs: final, else latest, else best; None if there is none."""
    return next((fold_folder / name for name in checkpoint_names.ALL if (fold_folder / name).is_file()), None)


def read_progress(file: Path, debug: Mapping[str, Any] | None = None) -> TrainingProgress:
    """Reads a checkpoint's log and counts its parameters, without loading its weights into memory.

    debug: the content of nnU-Net's debug.json, which knows the planned epochs and the device.
    Raises CheckpointError for a file that is no nnU-Net checkpoint.
    """
    remedy = "Train the fold again, or continue it from another checkpoint (--c)"
    content = read_training(file, remedy, tensors=False)
    try:
        log, weights = content["logging"], content[WEIGHTS]
        n = min(len(log[key]) for key in ("train_losses", "val_losses", "mean_fg_dice", "epoch_end_timestamps"))
        starts, ends = log["epoch_start_timestamps"][:n], log["epoch_end_timestamps"][:n]
        losses = {key: _numbers(log[key], n) for key in ("train_losses", "val_losses", "mean_fg_dice")}
        seconds = tuple(float(end) - float(start) for start, end in zip(starts, ends, strict=True))
        started = float(starts[0]) if n else None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file} holds no log of nnU-Net's trainings ({type(error).__name__}: {error}). {remedy}"
        ) from error
    slicing = weights.get("slicing")
    known = debug or {}
    planned = str(known.get("num_epochs", ""))
    return TrainingProgress(
        checkpoint=file.name,
        finished=file.name == checkpoint_names.ALL[0],
        train_loss=losses["train_losses"],
        validation_loss=losses["val_losses"],
        pseudo_dice=losses["mean_fg_dice"],
        seconds=seconds,
        started=started,
        planned_epochs=int(planned) if is_number(planned) else None,
        parameters=sum(t.numel() for t in weights.values() if t.is_floating_point()),
        slicing=None if slicing is None or slicing.ndim != 2 else tuple(tuple(row) for row in slicing.tolist()),
        versions={key: str(known[key]) for key in ("torch_version", "gpu_name", "device") if key in known},
    )


def _numbers(values: Sequence[Any], n: int) -> tuple[float, ...]:
    return tuple(float(value) for value in values[:n])
