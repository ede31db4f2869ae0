"""`slicemamba status` and `slicemamba cancel`: a run of several steps at once, seen and ended from another shell."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.options import Dataset
from nnunetv2_slicemamba.common.console import PlainConsole

ConfigurationOfRun = Annotated[str | None, typer.Option("-c", help="Configuration; default: all that were run.")]


def add_commands(app: typer.Typer) -> None:
    app.command("status")(status)
    app.command("cancel")(cancel)


def status(dataset: Dataset, configuration: ConfigurationOfRun = None) -> None:
    """Shows every step of a run with --gpus or --at-once: its state, job, time, epoch and last line of its log.

    It reads files, from any shell and on any day, and changes nothing.
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
    """Ends a run with --gpus or --at-once, with all its steps; trainings save their last finished epoch.

    The run's command goes on later.
    """
    from nnunetv2_slicemamba.pipeline.cancelling import cancel_run
    from nnunetv2_slicemamba.pipeline.graph import runs_of

    console = PlainConsole()
    for folder in runs_of(dataset):
        cancel_run(folder, console)
