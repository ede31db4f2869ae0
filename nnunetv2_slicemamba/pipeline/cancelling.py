"""End of a run or comparison at work, asked for by another process."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

from rich.console import Console

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.other_processes import host
from nnunetv2_slicemamba.pipeline.run_folder import BEGUN_JSON, RunFolder
from nnunetv2_slicemamba.pipeline.slurm.client import live_jobs
from nnunetv2_slicemamba.pipeline.slurm.submission import cancel_jobs

PATIENCE_SECONDS = 120.0
_LOOK_SECONDS = 0.5


def cancel_run(folder: RunFolder, console: Console, patience: float = PATIENCE_SECONDS) -> None:
    """Asks a run or a comparison to end, and waits until it has, or says so; only says so where nothing of it runs.

    Raises InputError for a run of another machine, and if SLURM does not answer.
    """
    asked = BEGUN_JSON.read(folder.file)
    jobs = list((asked.get("jobs") or {}).values())
    live = live_jobs(jobs)
    if live:
        cancel_jobs(live)
        _tell_end(folder, console, lambda: bool(live_jobs(live)), patience, asked["command"])
        return
    if not folder.is_at_work:
        none = "no job of it waits or runs" if jobs else "no process runs it"
        console.print(f"{folder.title}: {none}")
        return
    if asked["host"] != host():
        raise InputError(f"{folder.title} is run on {asked['host']}; call this command there, this is {host()}")
    with contextlib.suppress(ProcessLookupError):  # it has ended by now
        os.kill(asked["process"], signal.SIGTERM)
    _tell_end(folder, console, lambda: folder.is_at_work, patience, asked["command"])


def _tell_end(
    folder: RunFolder, console: Console, is_at_work: Callable[[], bool], patience: float, command: str
) -> None:
    """Waits for the end of a run, and says whether it has come. command: goes on with the run."""
    until = time.monotonic() + patience
    while (at_work := is_at_work()) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
    told = "its steps are still ending" if at_work else "ended"
    console.print(f"{folder.title}: {told}. To go on: {command}")
