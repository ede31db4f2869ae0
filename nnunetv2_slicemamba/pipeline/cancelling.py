"""End of a run at work, asked for by another process."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from rich.console import Console

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.other_processes import host
from nnunetv2_slicemamba.pipeline.run_folder import RUN_JSON, RunFolder

PATIENCE_SECONDS = 120.0
_LOOK_SECONDS = 0.2


def cancel_run(folder: RunFolder, console: Console, patience: float = PATIENCE_SECONDS) -> None:
    """Asks a run to end, and waits until it has, or says so; nothing but words where no process runs it.

    Raises InputError for a run of another machine.
    """
    if not folder.is_at_work:
        console.print(f"{folder.path.name}: no process runs it")
        return
    asked = RUN_JSON.read(folder.file)
    if asked["host"] != host():
        raise InputError(f"{folder.path.name} is run on {asked['host']}; call this command there, this is {host()}")
    with contextlib.suppress(ProcessLookupError):  # it has ended by now
        os.kill(asked["process"], signal.SIGTERM)
    until = time.monotonic() + patience
    while folder.is_at_work and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
    told = "its steps are still ending" if folder.is_at_work else "ended"
    console.print(f"{folder.path.name}: {told}. To go on: {asked['command']}")
