"""`slicemamba status` and `slicemamba cancel`: a run of several steps at once, seen and ended from another shell."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.help import TRAIN, listed
from nnunetv2_slicemamba.cli.options import Dataset, configuration_option
from nnunetv2_slicemamba.common.console import PlainConsole

ConfigurationOfRun = Annotated[str | None, configuration_option("Configuration. Default: all that were run.")]
EXAMPLES = (
    "slicemamba status -d 501",
    "slicemamba status -d 501 -c 2d",
)
CANCEL_EXAMPLES = (
    "slicemamba cancel -d 501",
    "slicemamba cancel -d Dataset501_Lesions",
)


def add_commands(app: typer.Typer) -> None:
    app.command("status", **listed(TRAIN, EXAMPLES))(status)
    app.command("cancel", **listed(TRAIN, CANCEL_EXAMPLES))(cancel)


def status(dataset: Dataset, configuration: ConfigurationOfRun = None) -> None:
    """Show every step of a run with --gpus or --at-once.

    A line has the step's state, job, time, epoch and last line of its log. The command reads files, from any shell and
    on any day, and changes nothing.
    """
    from nnunetv2_slicemamba.pipeline.graph import read_run, runs_of
    from nnunetv2_slicemamba.pipeline.states import states_on_disk, status_table

    console = PlainConsole()
    for folder in runs_of(dataset, configuration):
        steps, asked = read_run(folder)
        states = states_on_disk(steps, folder)
        console.print(status_table(states, folder.path.name))
        for one in states:
            if one.message:
                console.print(f"{one.step.title}: {one.message}")
        at_work = f"Process {asked['process']} on {asked['host']} runs it since {asked['started']}."
        console.print(at_work if folder.is_at_work else f"No process runs it. To go on: {asked['command']}")
        console.print(f"Logs: {folder.path}")


def cancel(dataset: Dataset) -> None:
    """End a run with --gpus or --at-once, and keep what is finished.

    Trainings save their last finished epoch. The run's command continues it later.
    """
    from nnunetv2_slicemamba.pipeline.cancelling import cancel_run
    from nnunetv2_slicemamba.pipeline.graph import runs_of

    console = PlainConsole()
    for folder in runs_of(dataset):
        cancel_run(folder, console)
