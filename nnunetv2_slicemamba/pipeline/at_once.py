"""Steps of a run at once on one machine, each in a place of its own, as jobs of submitit's local executor."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import submitit
from rich.console import Console
from rich.live import Live

from nnunetv2_slicemamba.common.commands import CommandError
from nnunetv2_slicemamba.common.console import styled
from nnunetv2_slicemamba.common.durations import duration_text
from nnunetv2_slicemamba.common.folder_lock import in_use
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.common.provenance import now
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.common.stopping import exit_code, handling_signals
from nnunetv2_slicemamba.pipeline.job import ENDED_FILE, ENDED_JSON, JOB_FILE, record_of, run_job
from nnunetv2_slicemamba.pipeline.progress import TrainingProgress, last_line, training_progress
from nnunetv2_slicemamba.pipeline.run_folder import RunFolder
from nnunetv2_slicemamba.pipeline.slurm.submission import refuse_live_jobs
from nnunetv2_slicemamba.pipeline.states import FAILED, FINISHED, RUNNING, STOPPED, StepState, outcome, progress_table
from nnunetv2_slicemamba.pipeline.step import Command, Finished, Step

if TYPE_CHECKING:
    from nnunetv2_slicemamba.pipeline.places import Place

LOOK_SECONDS = 0.5  # between two looks at the jobs
SHOW_SECONDS = 2.0  # between two tables
# submitit ends a job after its time: a year is none
_MINUTES = 365 * 24 * 60


@contextlib.contextmanager
def only_run(folder: RunFolder) -> Iterator[None]:
    """Context in which this process alone runs or submits steps of the dataset.

    Raises FolderInUseError, and InputError where jobs of SLURM wait or run.
    """
    with in_use(folder.path.parent), in_use(folder.path):
        refuse_live_jobs(folder.path.parent)
        yield


def run_at_once(
    steps: Sequence[Step],
    places: Sequence[Place],
    folder: RunFolder,
    console: Console,
    title: str = "",
    before: int = 0,
) -> None:
    """Takes all steps that are not finished, as many at once as there are places; what they need comes first.

    before: number of the command's steps that came before these. Trainings are shown as a table with their last epoch,
    where the console is no terminal as a line for an epoch.
    A step that fails does not stop the steps that do not need it. Steps end with this process, however that ends (on
    Linux); a signal that asks it to end is passed on to them, and SystemExit follows once they have ended. Raises
    CommandError at the end that names what failed.
    """
    run = _Run(steps, places, folder, console, before)
    asked: list[int] = []
    sent, shown = 0, 0.0
    live = Live(console=console, auto_refresh=False, transient=True)
    with handling_signals(asked.append), live, run.ending_with_an_error():
        while True:
            run.collect()
            if not asked:
                run.start_what_can()
            for _ in range(sent, len(asked)):
                run.pass_on()
            sent = len(asked)
            if not run.jobs:
                break
            if time.monotonic() - shown >= SHOW_SECONDS:
                shown = time.monotonic()
                if console.is_terminal:
                    live.update(progress_table(run.states, title), refresh=True)
                else:
                    run.tell_epochs()
            time.sleep(LOOK_SECONDS)
    console.print(progress_table(run.states, title))
    if asked:
        console.print(styled(f"{signal.Signals(asked[0]).name}: ended all steps"))
        sys.exit(exit_code(asked[0]))
    run.tell_failures()


@dataclass(frozen=True)
class _Job:
    """A job at work: of which step, where, since when."""

    state: StepState
    place: Place
    job: Any
    since: float


class _Run:
    """The steps of a run with their states, and the jobs at work."""

    def __init__(
        self, steps: Sequence[Step], places: Sequence[Place], folder: RunFolder, console: Console, before: int
    ) -> None:
        total = before + len(steps)
        self.names = {
            step.name: f"Step {number} of {total}: {step.title}" for number, step in enumerate(steps, before + 1)
        }
        self.told: dict[str, int | None] = {}  # the epoch that was told last, by the step's name
        self.states = [StepState(step) for step in steps]
        self.by_name = {state.step.name: state for state in self.states}
        self.free = list(places)
        self.folder, self.console = folder, console
        self.jobs: list[_Job] = []
        for step in steps:
            records = folder.step(step.name)
            ended = record_of(records, ENDED_JSON, ENDED_FILE)
            if ended is None or outcome(ended["code"]) != FINISHED:  # what failed in an earlier run waits in this one
                for name in (JOB_FILE, ENDED_FILE):
                    records.joinpath(name).unlink(missing_ok=True)

    def start_what_can(self) -> None:
        """Starts steps in free places, in the order of the run, and leaves out those that were finished before."""
        for state in self.states:
            after = [self.by_name[name].state for name in state.step.after]
            if state.state in (RUNNING, FINISHED, STOPPED, FAILED) or any(one != FINISHED for one in after):
                continue
            if not self.free:
                break
            try:
                needed = state.step.look()
                if isinstance(needed, Finished):
                    state.state = FINISHED
                    self.tell(state, needed.text)
                else:
                    self.start(state, needed)
            except Exception as error:  # of this step alone
                self.end(state, FAILED, str(error) or type(error).__name__)

    def start(self, state: StepState, command: Command) -> None:
        """Submits a step's command as a job."""
        place, folder = self.free.pop(0), self.folder.step(state.step.name)
        folder.mkdir(parents=True, exist_ok=True)
        folder.joinpath(ENDED_FILE).unlink(missing_ok=True)
        executor = submitit.LocalExecutor(folder)
        executor.update_parameters(timeout_min=_MINUTES, stderr_to_stdout=True)
        variables = place.variables()
        with _signals_kept_from_children():
            job = executor.submit(run_job, command, variables, place.cores, str(folder), os.getpid())
        state.state, state.place, state.job, state.log = RUNNING, place.name, job.job_id, Path(job.paths.stdout)
        shown = shell_line(command.name, *command.arguments)
        record = {"job": job.job_id, "place": place.name, "log": str(state.log), "started": now(), "command": shown}
        write_json(folder / JOB_FILE, record)
        self.jobs.append(_Job(state, place, job, time.monotonic()))
        self.told[state.step.name] = self.progress(state).ended
        self.tell(state, f"started on {place.name}, log {state.log}\n  $ {shown}")

    def collect(self) -> None:
        """Notes the jobs that have ended, and frees their places."""
        for one in [one for one in self.jobs if one.job.done()]:
            self.jobs.remove(one)
            self.free.append(one.place)
            one.state.seconds = time.monotonic() - one.since
            ended = record_of(self.folder.step(one.state.step.name), ENDED_JSON, ENDED_FILE)
            if ended is None or ended["job"] != one.job.job_id:
                said = last_line(one.state.log)
                self.end(one.state, STOPPED, f"its process was killed{f' ({said})' if said else ''}")
                continue
            state, message = outcome(ended["code"]), ended["message"]
            if state == FINISHED:
                state, message = self.checked(one.state.step)
            self.end(one.state, state, message)

    def checked(self, step: Step) -> tuple[str, str]:
        """State and message of a step whose command has succeeded: the files must say so too."""
        try:
            if isinstance(step.look(), Finished):
                return FINISHED, ""
            return FAILED, "its command succeeded, and left it unfinished"
        except Exception as error:  # of this step alone
            return FAILED, str(error) or type(error).__name__

    def end(self, state: StepState, how: str, message: str) -> None:
        state.state, state.message = how, message
        after = "" if state.seconds is None else f" after {duration_text(state.seconds)}"
        self.tell(state, f"{how}{after}{f': {message}' if message else ''}")

    def tell(self, state: StepState, text: str) -> None:
        self.console.print(styled(f"{self.names[state.step.name]}: {text}"), soft_wrap=True)

    def tell_epochs(self) -> None:
        """Tells the last epoch of every training at work, once."""
        for one in self.jobs:
            now_at = self.progress(one.state)
            if now_at.ended and now_at.ended != self.told[one.state.step.name]:
                self.told[one.state.step.name] = now_at.ended
                self.tell(one.state, now_at.line)

    def progress(self, state: StepState) -> TrainingProgress:
        """How far a step's training is, as its log says."""
        return TrainingProgress() if state.step.training is None else training_progress(state.step.training)

    @contextlib.contextmanager
    def ending_with_an_error(self) -> Iterator[None]:
        """Context whose error ends the jobs, too."""
        try:
            yield
        except BaseException:
            self.pass_on()
            raise

    def pass_on(self) -> None:
        """Asks all jobs to end."""
        for one in self.jobs:
            # the number of a local job is that of the process that controls it, which passes the signal on
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(one.job.job_id), signal.SIGTERM)

    def tell_failures(self) -> None:
        """Raises CommandError if steps are not finished."""
        left = [state for state in self.states if state.state != FINISHED]
        if not left:
            return
        ended = [state for state in left if state.state in (FAILED, STOPPED)]
        lines = [f"{one.step.title}: {one.message}{f'; log {one.log}' if one.log else ''}" for one in ended]
        waiting = f", and {len(left) - len(ended)} that need them" if len(left) > len(ended) else ""
        raise CommandError(
            f"{len(ended)} of {len(self.states)} steps failed{waiting}. What is finished is kept; once the cause is "
            "mended, the same command goes on:\n" + "\n".join(lines)
        )


@contextlib.contextmanager
def _signals_kept_from_children() -> Iterator[None]:
    """Context in which processes are started that Ctrl-C and a closed terminal do not reach: this one answers them.

    submitit's controller would kill its job a second after Ctrl-C, while the job saves.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGHUP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
