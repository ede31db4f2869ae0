"""`slicemamba status` and `slicemamba cancel`: a run at once or on a cluster, seen and ended from another shell."""

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
    """Show every step of a run with --gpus, --at-once or --launcher slurm.

    A line has the step's state, job, time, epoch and last line of its log. The command reads files and asks SLURM about
    jobs, from any shell and on any day, and changes nothing.
    """
    from nnunetv2_slicemamba.pipeline.graph import read_run, runs_of
    from nnunetv2_slicemamba.pipeline.slurm.client import SlurmError, live_jobs
    from nnunetv2_slicemamba.pipeline.slurm_states import states_in_slurm
    from nnunetv2_slicemamba.pipeline.states import FINISHED, states_on_disk, status_table

    console = PlainConsole()
    for folder in runs_of(dataset, configuration):
        steps, asked = read_run(folder)
        jobs, silent = asked.get("jobs"), None
        try:
            states = states_on_disk(steps, folder) if jobs is None else states_in_slurm(steps, folder, jobs)
            live = folder.is_at_work if jobs is None else bool(live_jobs(jobs.values()))
        except SlurmError as error:
            states, live, silent = states_on_disk(steps, folder), False, str(error)
        console.print(status_table(states, folder.path.name))
        for one in states:
            if one.message:
                console.print(f"{one.step.title}: {one.message}")
        if silent is not None:
            console.print(f"This is what files tell; SLURM has not been asked: {silent}")
        elif live:
            by = f"Process {asked['process']} on {asked['host']} runs it" if jobs is None else "Jobs of SLURM run it"
            console.print(f"{by} since {asked['started']}.")
        elif all(one.state == FINISHED for one in states):
            console.print("All steps are finished.")
        else:
            runs = "No process runs it" if jobs is None else "No job of it waits or runs"
            console.print(f"{runs}. To go on: {asked['command']}")
        console.print(f"Logs: {folder.path}")


def cancel(dataset: Dataset) -> None:
    """End a run with --gpus, --at-once or --launcher slurm, and keep what is finished.

    Trainings save their last finished epoch. The run's command continues it later.
    """
    from nnunetv2_slicemamba.pipeline.cancelling import cancel_run
    from nnunetv2_slicemamba.pipeline.graph import runs_of

    console = PlainConsole()
    for folder in runs_of(dataset):
        cancel_run(folder, console)
