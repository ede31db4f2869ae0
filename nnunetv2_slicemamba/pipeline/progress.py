"""How far a training is, read from the log that nnU-Net writes."""

from __future__ import annotations

import contextlib
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_slicemamba.common.durations import duration_text
from nnunetv2_slicemamba.common.json_reading import JsonFileError
from nnunetv2_slicemamba.common.names import is_number
from nnunetv2_slicemamba.common.nnunet_files import DEBUG_JSON
from nnunetv2_slicemamba.common.watch import MOMENT

_END = 1 << 16  # bytes of a log that are read, which hold the last epochs
_EPOCH = re.compile(r": Epoch (\d+)\s*$", re.MULTILINE)
_LOSS = re.compile(r": train_loss (\S+)")
_DICE = re.compile(r": Pseudo dice \[(.*?)\]")
_SECONDS = re.compile(r": Epoch time: ([\d.]+) s")
_LAUNCHER = re.compile(r"submitit |srun: |slurmstepd.*\*\*\*")
# numbers also within np.float32(...)
_NUMBER = re.compile(r"nan|\d+\.\d+(?:e-?\d+)?")


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training is. epoch: at work, from 0. epochs: planned. loss, dice: of the last epoch that has ended.

    dice: mean of nnU-Net's pseudo Dice over the classes that have one. seconds_left: of all epochs. ended: number of
    epochs that have ended. None where the log does not say.
    """

    epoch: int | None = None
    epochs: int | None = None
    loss: float | None = None
    dice: float | None = None
    seconds_left: float | None = None
    ended: int | None = None

    @property
    def line(self) -> str:
        """The last epoch that has ended, in a line."""
        told = [f"epoch {self.ended} of {self.epochs or '?'}"]
        told += [f"loss {self.loss:.4f}"] if self.loss is not None else []
        told += [f"Dice {self.dice:.4f}"] if self.dice is not None else []
        left = self.seconds_left
        told += [f"{duration_text(left)} left" if left else "validation follows"] if left is not None else []
        return ", ".join(told)


def training_progress(fold_folder: Path) -> TrainingProgress:
    """Progress of the training in a result folder; without any number before its first epoch."""
    logs = sorted(fold_folder.glob("training_log_*.txt"), key=lambda file: file.stat().st_mtime)
    if not logs:
        return TrainingProgress()
    text = end_of(logs[-1])
    epoch, seconds = _last(_EPOCH, text), _last(_SECONDS, text)
    epochs = _planned(fold_folder / "debug.json")
    classes = [float(number) for number in _NUMBER.findall(_last(_DICE, text) or "")]
    values = [value for value in classes if not math.isnan(value)]
    ended = left = None
    if epoch is not None:
        # the epoch at work counts as a whole one, unless it is the last that has ended
        ended = int(epoch) + (text.rfind("Epoch time:") > text.rfind(f": Epoch {epoch}"))
    if ended is not None and seconds is not None and epochs is not None:
        left = float(seconds) * (epochs - ended)
    return TrainingProgress(
        epoch=None if epoch is None else int(epoch),
        epochs=epochs,
        loss=_number(_last(_LOSS, text)),
        dice=sum(values) / len(values) if values else None,
        seconds_left=left,
        ended=ended,
    )


def epoch_begun(line: str) -> int | None:
    """The epoch, from 0, whose begin a line of a training's log tells; None for another line."""
    found = _EPOCH.search(line)
    return int(found[1]) if found else None


def is_epochs_end(line: str) -> bool:
    """Whether a line of a training's log is the last one of an epoch."""
    return _SECONDS.search(line) is not None


def last_line(log: Path | None) -> str:
    """The last line of a job's log with something on it, without its moment; "" if there is none.

    What submitit says does not count, nor what SLURM says about the end of a job.
    """
    lines = end_of(log).splitlines() if log is not None and log.is_file() else []
    told = (MOMENT.sub("", line).strip() for line in reversed(lines))
    return next((line for line in told if line and not _LAUNCHER.match(line)), "")


def end_of(file: Path) -> str:
    """The last part of a text file, as far as it is text."""
    with open(file, "rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - _END))
        return stream.read().decode(errors="replace")


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.findall(text)
    return found[-1] if found else None


def _number(text: str | None) -> float | None:
    found = re.search(r"-?(?:nan|\d+\.\d+(?:e-?\d+)?)", text or "")
    return float(found[0]) if found else None


def _planned(debug: Path) -> int | None:
    with contextlib.suppress(JsonFileError):  # it may be being written
        planned = str((DEBUG_JSON.read_if_there(debug) or {}).get("num_epochs", ""))
        return int(planned) if is_number(planned) else None
    return None
