"""A step's job as a node runs it, with a command that takes no time: it waits, saves when asked to, and goes on."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common import commands
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.pipeline.fold_steps import CHECKPOINTS
from nnunetv2_slicemamba.pipeline.slurm import job
from nnunetv2_slicemamba.pipeline.slurm.job import StepJob
from nnunetv2_slicemamba.pipeline.step import Command, Finished, Step
from tests import light_child

job.part_of_node = lambda command, *_: command  # a command takes the place of torchrun, too
commands.ENTRY_POINTS["work"] = ("tests.pipeline.slurm.stand_in_work", "work")


class StandInJob(StepJob):
    """StepJob of a step whose command is `work`. saves: whether it keeps anything when it is stopped."""

    saves = True

    def __call__(self) -> None:
        commands.run_process = light_child.run_process
        asked: dict[str, Any] = {"dataset": "", "configuration": "", "plans_name": "", "folds": []}
        settings = {"trainer": "", "supernet_trainer": "", "device": "", "search_arguments": []}
        settings |= {"npz": False, "predict": False}
        said = {"command": "", "process": 1, "host": "", "started": ""}
        write_json(self.folder.file, {**asked, "settings": settings, **said})
        super().__call__()

    def step_now(self, asked: dict[str, Any], told: list[str]) -> Step:
        folder = self.folder.path
        made = folder / "made"

        def look() -> Command | Finished:
            return Finished() if made.is_file() else Command("work", (str(folder), str(self.saves)))

        return Step("training", "0", "training", (), look, keeps=((folder, CHECKPOINTS),))


def work() -> None:
    """Waits for its end, saves then, and when it is called again finishes with what it finds."""
    folder, saves = Path(sys.argv[1]), sys.argv[2] == "True"
    checkpoint = folder / "checkpoint_latest.pth"
    if checkpoint.is_file():
        (folder / "made").write_text(checkpoint.read_text())
        return

    def save(number: int, frame: Any) -> None:
        if saves:
            checkpoint.write_text("saved")
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, save)
    (folder / "at_work").write_text(str(os.getpid()))
    time.sleep(100)
