"""Logs of trainings, as nnU-Net's checkpoints keep them.

They hold pickled Python objects (its plans, NumPy's numbers), which only torch.load with
weights_only=False reads, and a pickle can run code. Only checkpoints of the user's own result tree are read here; a
report must not be made of a tree from somebody whom one does not trust.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common import checkpoint_names
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
    def total_seconds(self) -> float:
        """Time spent in epochs, without the pauses of an interrupted training."""
        return math.fsum(self.seconds)


class CheckpointError(ValueError):
    """A checkpoint cannot be read; the message names the file and the remedy."""


def newest_checkpoint(fold_folder: Path) -> Path | None:
    """The checkpoint that has seen most epochs: final, else latest, else best; None if there is none."""
    return next((fold_folder / name for name in checkpoint_names.ALL if (fold_folder / name).is_file()), None)


def read_training(file: Path, debug: Mapping[str, Any] | None = None) -> TrainingProgress:
    """Reads a checkpoint's log and counts its parameters, without loading its weights into memory.

    debug: the content of nnU-Net's debug.json, which knows the planned epochs and the device.
    Raises CheckpointError for a file that is no nnU-Net checkpoint.
    """
    remedy = "Train the fold again, or continue it from another checkpoint (--c)"
    try:
        content = _load(file)
        log, weights = content["logging"], content["network_weights"]
        n = min(len(log[key]) for key in ("train_losses", "val_losses", "mean_fg_dice", "epoch_end_timestamps"))
    except Exception as error:  # whatever a damaged zip, a damaged pickle or a missing class raises
        raise CheckpointError(
            f"{file} cannot be read as a checkpoint ({type(error).__name__}: {error}). {remedy}"
        ) from error
    starts, ends = log["epoch_start_timestamps"], log["epoch_end_timestamps"]
    slicing = weights.get("slicing")
    known = debug or {}
    planned = str(known.get("num_epochs", ""))
    return TrainingProgress(
        checkpoint=file.name,
        finished=file.name == checkpoint_names.ALL[0],
        train_loss=_numbers(log["train_losses"], n),
        validation_loss=_numbers(log["val_losses"], n),
        pseudo_dice=_numbers(log["mean_fg_dice"], n),
        seconds=tuple(float(end) - float(start) for start, end in zip(starts[:n], ends[:n], strict=True)),
        started=float(starts[0]) if n else None,
        planned_epochs=int(planned) if is_number(planned) else None,
        parameters=sum(t.numel() for t in weights.values() if t.is_floating_point()),
        slicing=None if slicing is None else tuple(tuple(row) for row in slicing.tolist()),
        versions={key: str(known[key]) for key in ("torch_version", "gpu_name", "device") if key in known},
    )


def _load(file: Path) -> Mapping[str, Any]:
    import torch

    try:
        # mapped: of hundreds of megabytes of weights, only the slicing's few bytes are read
        return torch.load(file, map_location="cpu", weights_only=False, mmap=True)
    except RuntimeError:
        # torch's format before 1.6 cannot be mapped; a damaged file fails again
        return torch.load(file, map_location="cpu", weights_only=False)


def _numbers(values: Sequence[Any], n: int) -> tuple[float, ...]:
    return tuple(float(value) for value in values[:n])
