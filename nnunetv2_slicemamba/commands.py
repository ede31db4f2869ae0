"""Running nnU-Net's and our own commands as a user would, in processes of their own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

EXT_TRAINER = Path(__file__).parent / "ext_trainer"

# the functions behind nnU-Net's console scripts, which need not be on the PATH
ENTRY_POINTS = {
    "nnUNetv2_train": ("nnunetv2.run.run_training", "run_training_entry"),
    "nnUNetv2_predict": ("nnunetv2.inference.predict_from_raw_data", "predict_entry_point"),
    "nnUNetv2_evaluate_folder": ("nnunetv2.evaluation.evaluate_predictions", "evaluate_folder_entry_point"),
}


class CommandError(RuntimeError):
    """A command failed; the message names it and its exit code."""


def environment(changed: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of child processes, in which nnU-Net finds our trainers."""
    variables = {**os.environ, **(changed or {})}
    folders = [part for part in variables.get("nnUNet_extTrainer", "").split(os.pathsep) if part]
    if str(EXT_TRAINER) not in folders:
        folders.append(str(EXT_TRAINER))
    variables["nnUNet_extTrainer"] = os.pathsep.join(folders)
    return variables


def run_command(
    name: str,
    arguments: Sequence[str],
    console: Console,
    variables: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> None:
    """Runs `slicemamba ...` or one of nnU-Net's commands and waits for it.

    name: "slicemamba" or a key of ENTRY_POINTS. variables: environment variables to change. quiet: show the output
    only if the command fails. Raises CommandError naming the command and its exit code.
    """
    shown = shlex.join([name, *arguments])
    console.print(f"[bold cyan]$ {shown}[/]", soft_wrap=True, highlight=False)
    if name == "slicemamba":
        call = [sys.executable, "-m", "nnunetv2_slicemamba", *arguments]
    else:
        module, function = ENTRY_POINTS[name]
        call = [sys.executable, "-c", f"from {module} import {function} as entry; entry()", *arguments]
    kept = subprocess.PIPE if quiet else None
    done = subprocess.run(
        call,
        env=environment(variables),
        stdout=kept,
        stderr=subprocess.STDOUT if quiet else None,
        text=True,
        check=False,
    )
    if done.returncode:
        if quiet:
            console.print(done.stdout, markup=False, highlight=False, soft_wrap=True)
        raise CommandError(f"'{shown}' failed with exit code {done.returncode}; what was finished before it is kept")
