"""A training as it is shown while it runs: a line for every epoch."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from nnunetv2_slicemamba.common.watch import SILENCE_SECONDS, WARNING, Watch
from nnunetv2_slicemamba.pipeline.progress import epoch_begun, is_epochs_end, training_progress


class TrainingWatch(Watch):
    """A training's output as the last finished epoch with loss, Dice and the time that is left.

    The line is rewritten on a terminal; in a log file there is one per epoch. Before the first and after the last epoch
    the latest line of the output is shown. folder: the training's result folder.
    """

    def __init__(self, folder: Path, console: Console, silence: float = SILENCE_SECONDS) -> None:
        super().__init__(console, silence)
        self.folder = folder
        self.in_epochs = False

    def read(self, line: str) -> None:
        epoch = epoch_begun(line)
        if epoch is not None:
            if not self.in_epochs or not self.console.is_terminal:  # which keeps the epoch before in sight
                self.show(f"in epoch {epoch + 1}")
            self.in_epochs = True
        elif is_epochs_end(line):
            now_at = training_progress(self.folder)
            self.show(now_at.line)
            if not self.console.is_terminal:
                self.tell(now_at.line)
            self.in_epochs = now_at.ended != now_at.epochs
        elif not self.in_epochs or line.startswith(WARNING):
            super().read(line)
