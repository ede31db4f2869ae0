"""nnU-Net's and our own commands, run as a user would, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console

from nnunetv2_slicemamba.common.console import styled
from nnunetv2_slicemamba.common.registration import EXT_TRAINER_FOLDER, EXT_TRAINER_VARIABLE
from nnunetv2_slicemamba.common.shell import shell_line

# the functions behind nnU-Net's console scripts, which need not be on the PATH
ENTRY_POINTS = {
    "nnUNetv2_train": ("nnunetv2.run.run_training", "run_training_entry"),
    "nnUNetv2_predict": ("nnunetv2.inference.predict_from_raw_data", "predict_entry_point"),
    "nnUNetv2_evaluate_folder": ("nnunetv2.evaluation.evaluate_predictions", "evaluate_folder_entry_point"),
}


class CommandError(RuntimeError):
    """A command failed; the message names it and its exit code."""


def environment(changed: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of child processes, in which nnU-Net finds our trainers."""
    variables = {**os.environ, **(changed or {})}
    folders = [part for part in variables.get(EXT_TRAINER_VARIABLE, "").split(os.pathsep) if part]
    if str(EXT_TRAINER_FOLDER) not in folders:
        folders.append(str(EXT_TRAINER_FOLDER))
    variables[EXT_TRAINER_VARIABLE] = os.pathsep.join(folders)
    # on a CPU nnU-Net's augmentation shares the cores: OpenMP threads that spin for long take them from those that
    # work, while sleeping at once doubles the time of small operations
    variables.setdefault("GOMP_SPINCOUNT", "5000")
    return variables


def run_command(
    name: str,
    arguments: Sequence[str],
    console: Console,
    variables: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> None:
    """Runs `slicemamba ...` or one of nnU-Net's commands and waits for it.

    name: "slicemamba" or a key of ENTRY_POINTS. variables: environment variables to change. quiet: show only the
    latest line of output, on a terminal, and all of it if the command fails. Raises CommandError naming the command
    and its exit code.
    """
    shown = shell_line(name, *arguments)
    console.print(styled(f"$ {shown}", "bold cyan"), soft_wrap=True)
    if name == "slicemamba":
        call = [sys.executable, "-m", "nnunetv2_slicemamba", *arguments]
    else:
        module, function = ENTRY_POINTS[name]
        # nnU-Net unpickles checkpoints, whose code must not run in a command that we start
        safely = "from nnunetv2_slicemamba.common.checkpoints import load_safely_from_now_on as safely; safely()"
        call = [sys.executable, "-c", f"{safely}; from {module} import {function} as entry; entry()", *arguments]
    child = environment(variables)
    code, output = watch(call, child, console) if quiet else (subprocess.call(call, env=child), "")
    if code:
        console.print(styled(output), soft_wrap=True)
        raise CommandError(f"'{shown}' failed with exit code {code}; what was finished before it is kept")


def watch(call: Sequence[str], variables: Mapping[str, str], console: Console) -> tuple[int, str]:
    """Runs a process behind a spinner with the latest line of its output; returns exit code and whole output."""
    # unbuffered, or the latest line would be minutes old
    running = {**variables, "PYTHONUNBUFFERED": "1"}
    kept = []
    with (
        console.status("starting") as status,
        subprocess.Popen(call, env=running, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            kept.append(line)
            if line.strip():
                status.update(styled(line.strip()[: max(20, console.width - 4)]))
    return process.returncode, "".join(kept)
