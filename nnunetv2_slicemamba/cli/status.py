"""`slicemamba status` and `slicemamba cancel`: what runs at once or on a cluster, seen and ended from another shell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.help import TRAIN, listed
from nnunetv2_slicemamba.cli.options import Dataset, configuration_option, output_option
from nnunetv2_slicemamba.common.console import PlainConsole

ConfigurationOfRun = Annotated[str | None, configuration_option("Configuration. Default: all that were run.")]
Compared = Annotated[Path | None, output_option("Folder of a comparison that was given --output.", "FOLDER")]
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


def status(dataset: Dataset, configuration: ConfigurationOfRun = None, output: Compared = None) -> None:
    """Show the steps of a run with --gpus, --at-once or --launcher slurm.

    Steps are those of runs, and the trainings of comparisons. A line has the step's state, job, time, epoch and last
    line of its log. The command reads files and asks SLURM about jobs, from any shell and on any day, and changes
    nothing.
    """
    from nnunetv2_slicemamba.comparison.begun import begun_of, read_begun
    from nnunetv2_slicemamba.pipeline.slurm.client import SlurmError, live_jobs
    from nnunetv2_slicemamba.pipeline.slurm_states import states_in_slurm
    from nnunetv2_slicemamba.pipeline.states import FINISHED, states_on_disk, status_table

    console = PlainConsole()
    for folder in begun_of(dataset, configuration, output):
        steps, asked = read_begun(folder)
        jobs, silent = asked.get("jobs"), None
        try:
            states = states_on_disk(steps, folder) if jobs is None else states_in_slurm(steps, folder, jobs)
            live = folder.is_at_work if jobs is None else bool(live_jobs(jobs.values()))
        except SlurmError as error:
            states, live, silent = states_on_disk(steps, folder), False, str(error)
        console.print(status_table(states, folder.title))
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


def cancel(dataset: Dataset, output: Compared = None) -> None:
    """End a run with --gpus, --at-once or --launcher slurm.

    What is finished is kept. Trainings save their last finished epoch. The command of the run continues it later.
    Comparisons with --gpus or --at-once are ended in the same way.
    """
    from nnunetv2_slicemamba.comparison.begun import begun_of
    from nnunetv2_slicemamba.pipeline.cancelling import cancel_run

    console = PlainConsole()
    for folder in begun_of(dataset, output=output):
        cancel_run(folder, console)
