"""A step as a job of SLURM: what runs on the node, saves before the end of its time, and is queued again."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import submitit

from nnunetv2_slicemamba.common.commands import CommandError
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.folder_lock import FolderInUseError
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.common.provenance import now
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.common.stopping import exit_code
from nnunetv2_slicemamba.pipeline.job import ENDED_FILE, JOB_FILE, recorded, run_step
from nnunetv2_slicemamba.pipeline.run_folder import RUN_JSON, RunFolder, older_name
from nnunetv2_slicemamba.pipeline.slurm.nodes import part_of_node
from nnunetv2_slicemamba.pipeline.step import PLAN, TRAINING, Command, Finished, Step, is_finished

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

# what submitit has SLURM send before the end of a job's time, to all processes of the job
WARNING = f"SIG{submitit.JobEnvironment.USR_SIG}"
PATIENCE_SECONDS = 120.0  # for the end of a process that still works in a step's folder
_LOOK_SECONDS = 1.0


class StepJob:
    """The work of one step of a run, as submitit pickles it and starts it on a node, as often as it is queued.

    folder: of the run. variables: environment variables of the command that submitted it. minutes: limit of its time.
    """

    def __init__(self, folder: str, step: str, variables: Mapping[str, str], minutes: int) -> None:
        self.folder, self.step = RunFolder(Path(folder)), step
        self.variables, self.minutes = dict(variables), minutes

    def __call__(self) -> None:
        """Takes the step from where its files say that it is, and records how it ended.

        Warned before the end of its time, it has the step save, and itself queued again.
        """
        os.environ.update(self.variables)
        job, records = submitit.JobEnvironment(), self.folder.step(self.step)
        if job.global_rank:  # of a search on several nodes: the first one's records are the step's
            records /= f"node_{job.global_rank}"
            records.mkdir(exist_ok=True)
        (records / ENDED_FILE).unlink(missing_ok=True)
        node = os.environ.get("SLURMD_NODENAME", job.hostname)
        record = {"job": job.job_id, "place": node, "log": str(job.paths.stdout), "started": now(), "command": ""}
        write_json(records / JOB_FILE, record)
        began = time.monotonic()
        try:
            with _noticing_warning() as warned, recorded(records) as told:
                self._take(record, records / JOB_FILE, told, warned, began)
        except SystemExit as end:
            if warned and end.code == exit_code(signal.SIGTERM):
                if job.global_rank:
                    return  # an exit code would end the first node, which has the job queued again
                # submitit's handler, which counts the times, has SLURM queue the job again and ends this process
                os.kill(os.getpid(), signal.Signals[WARNING])
            raise

    def checkpoint(self) -> DelayedSubmission:
        """The work that submitit queues again: the same, which goes on from its files."""
        return submitit.helpers.DelayedSubmission(self)

    def _take(self, record: dict[str, str], file: Path, told: list[str], warned: list[float], began: float) -> None:
        """Does the step's work. Raises CommandError if it fails, and where its time is too short to get on."""
        asked, job = RUN_JSON.read(self.folder.file), submitit.JobEnvironment()
        step = self.step_now(asked, told)
        needed = looked_at(step)
        if isinstance(needed, Finished):
            print(f"{step.title}: {needed.text}")
            return
        if job.num_nodes > 1:
            needed = part_of_node(needed, job, asked["settings"]["device"])
        shown = shell_line(needed.name, *needed.arguments)
        write_json(file, {**record, "command": shown})
        before = kept(step)
        try:
            if step.kind == PLAN:
                prepare_run(asked)
            else:
                run_step(needed, place_variables())
        except SystemExit:
            used = time.monotonic() - began
            # a warning that comes early is one of preemption
            if warned and used > self.minutes * 30 and kept(step) == before:
                raise CommandError(
                    f"its time of {self.minutes} minutes was over before there was anything to go on from; give more "
                    "with --time"
                ) from None
            raise
        # the first node writes the result, perhaps later than others end
        if job.global_rank == 0 and not isinstance(looked_at(step), Finished):
            raise CommandError(f"'{shown}' succeeded, and left the step unfinished")

    def step_now(self, asked: dict[str, Any], told: list[str]) -> Step:
        """The step; one of all folds is narrowed to the folds that are finished. Raises CommandError without any."""
        # nnU-Net reads its folders' variables when it is imported
        from nnunetv2_slicemamba.pipeline.graph import steps_of

        steps = steps_of(asked)
        step = next(one for one in steps if self.step in (one.name, older_name(one.name)))
        if step.fold or step.kind == PLAN:
            return step
        done = [one.fold for one in steps if one.kind == TRAINING and is_finished(one)]
        if not done:
            raise CommandError("no fold is trained and validated, so there is nothing to work with")
        if len(done) == len(asked["folds"]):
            return step
        told.append(f"with fold {', '.join(done)} alone: the others are not trained and validated")
        return {one.name: one for one in steps_of(asked, done)}[self.step]


def prepare_run(asked: dict[str, Any]) -> None:
    """Makes plans, preprocessed data and folds of a run. Raises InputError for folds and networks that do not fit."""
    from nnunetv2_slicemamba.pipeline.graph import selections_of, settings_of, steps_of
    from nnunetv2_slicemamba.pipeline.preparing import Planning, draw_folds, prepare, prepare_folds

    console, planning = PlainConsole(), Planning(**asked["planning"])
    sliced = settings_of(asked).sliced
    prepare(asked["dataset"], asked["configuration"], asked["plans_name"], planning, console, sliced)
    selections, settings = selections_of(asked)
    steps_of(asked)  # which also refuses what cannot be predicted
    prepare_folds(selections, settings, planning, console)
    draw_folds(selections, settings)


def looked_at(step: Step) -> Command | Finished:
    """What a step needs, once no process works in its folder; raises FolderInUseError after PATIENCE_SECONDS.

    A job that is started again, on another node too, may come before the end of its own last processes.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return step.look()
        except FolderInUseError:
            if time.monotonic() > until:
                raise
        time.sleep(_LOOK_SECONDS)


def kept(step: Step) -> list[tuple[str, int]]:
    """Names and times of the files that a stopped step goes on from."""
    files = [file for folder, pattern in step.keeps for file in folder.glob(pattern)]
    return sorted((str(file), file.stat().st_mtime_ns) for file in files)


def place_variables() -> dict[str, str]:
    """Variables that share out the cores that SLURM has given to this job."""
    from nnunetv2_slicemamba.pipeline.places import Place, usable_cores

    given = int(os.environ.get("SLURM_CPUS_ON_NODE", "0")) or None
    return Place("", None, tuple(usable_cores()[:given])).variables()


@contextlib.contextmanager
def _noticing_warning() -> Iterator[list[float]]:
    """Context in which the warning asks this process to end as SIGTERM does, and is noted in the list given."""
    noticed: list[float] = []

    def notice(number: int, frame: Any) -> None:
        noticed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.Signals[WARNING], notice)
    try:
        yield noticed
    finally:
        signal.signal(signal.Signals[WARNING], before)
