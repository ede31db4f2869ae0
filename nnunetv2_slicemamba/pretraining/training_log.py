"""Log of a pretraining: a line of JSON for every step and epoch, TensorBoard's files, and a progress bar."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nnunetv2_slicemamba.common.full_disk import full_disk_told
from nnunetv2_slicemamba.common.json_files import plain_json
from nnunetv2_slicemamba.common.json_lines import read_json_lines
from nnunetv2_slicemamba.common.whole_file import replacing

LOG_FILE = "log.jsonl"
LOGS = "tensorboard"


class TrainingLog:
    """Log that the first process writes and the others leave alone; a context manager.

    step, validated: steps and epochs that the training's state has done. Lines beyond, of a run that was killed after
    its last checkpoint, are dropped: they come again.
    """

    def __init__(self, folder: Path, total: int, step: int, validated: int, console: Console, enabled: bool) -> None:
        self.enabled, self._console = enabled, console
        self._file = folder / LOG_FILE
        self._writer: Any = None
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[rate]} images/s  top-1 {task.fields[top1]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not (enabled and console.is_terminal),
        )
        self._task = self._bar.add_task("", total=total, completed=step, loss="-", rate="-", top1="-")
        self._last = (time.monotonic(), step)
        if not enabled:
            return
        folder.mkdir(parents=True, exist_ok=True)
        kept = [
            line for line in read_log(folder) if (line["epoch"] < validated if "epoch" in line else line["step"] < step)
        ]
        with replacing(self._file) as temporary:
            temporary.write_text(as_lines(kept), encoding="utf-8")
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / LOGS), purge_step=step + 1 if step else None)
        except ImportError:
            console.print("No TensorBoard logs: tensorboard is not installed (pip install tensorboard).")

    def __enter__(self) -> TrainingLog:
        if not self._bar.disable:
            self._bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if not self._bar.disable:
            self._bar.stop()
        if self._writer is not None:
            self._writer.close()

    def steps(self, first: int, losses: list[float], rates: list[float], images_per_step: int, epoch: int) -> None:
        """Logs the losses and learning rates of consecutive steps."""
        if not self.enabled:
            return
        lines = [
            {"step": first + i, "loss": loss, "learning_rate": rate}
            for i, (loss, rate) in enumerate(zip(losses, rates, strict=True))
        ]
        self._write(lines)
        after = first + len(losses)
        now, (before, last) = time.monotonic(), self._last
        speed = (after - last) * images_per_step / max(now - before, 1e-9)
        self._last = (now, after)
        self._scalars(
            after, {"train/loss": losses[-1], "train/learning_rate": rates[-1], "train/images_a_second": speed}
        )
        self._bar.update(
            self._task, completed=after, description=f"epoch {epoch + 1}", loss=f"{losses[-1]:.3f}", rate=f"{speed:.0f}"
        )

    def epoch(self, step: int, epoch: int, figures: Mapping[str, float]) -> None:
        """Logs the validation figures after an epoch, in % or as they are; `step` steps are done."""
        if not self.enabled:
            return
        self._write([{"step": step, "epoch": epoch, **figures}])
        self._scalars(step, {f"validation/{name}": value for name, value in figures.items()})
        self._bar.update(self._task, top1=f"{figures['top1']:.2f}")
        shown = ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
        self._console.print(f"epoch {epoch + 1}: {shown}", highlight=False)
        self._last = (time.monotonic(), step)

    def _write(self, lines: list[dict[str, Any]]) -> None:
        with full_disk_told(self._file), self._file.open("a", encoding="utf-8") as file:
            file.write(as_lines(lines))

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)


def as_lines(entries: Iterable[Mapping[str, Any]]) -> str:
    """Entries as JSON, one a line."""
    return "".join(json.dumps(plain_json(entry)) + "\n" for entry in entries)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Entries of a training's log, [] without one; lines that a kill or a disk spoiled are left out with a warning."""
    return read_json_lines(folder / LOG_FILE, {"step": int, "epoch?": int})
