"""States of a run's steps, as the run knows them and as files tell them, and the tables that show them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from nnunetv2_slicemamba.common.console import styled
from nnunetv2_slicemamba.common.durations import duration_text
from nnunetv2_slicemamba.common.folder_lock import FolderInUseError
from nnunetv2_slicemamba.common.provenance import now
from nnunetv2_slicemamba.pipeline.job import ENDED_FILE, ENDED_JSON, JOB_FILE, JOB_JSON, record_of
from nnunetv2_slicemamba.pipeline.progress import last_line, training_progress
from nnunetv2_slicemamba.pipeline.run_folder import RunFolder
from nnunetv2_slicemamba.pipeline.step import Finished, Step

WAITING, RUNNING, FINISHED, STOPPED, FAILED = "waiting", "running", "finished", "stopped", "failed"
QUEUED, REQUEUED = "queued", "requeued"  # of jobs of SLURM
_STYLES = {RUNNING: "bold", REQUEUED: "yellow", FINISHED: "green", STOPPED: "yellow", FAILED: "bold red"}
_SHOWN = 60  # characters of a log's line


@dataclass
class StepState:
    """A step's state: WAITING, QUEUED, REQUEUED, RUNNING, FINISHED, STOPPED (by a signal, or with the run) or FAILED.

    place: GPU, cores or node, job: submitit's number, log, seconds: of the step's last job; message: why it failed.
    """

    step: Step
    state: str = WAITING
    place: str = ""
    job: str = ""
    log: Path | None = None
    seconds: float | None = None
    message: str = ""


def states_on_disk(steps: Sequence[Step], folder: RunFolder) -> list[StepState]:
    """States of a run's steps from the files that trainings, searches and jobs leave; nothing is unpickled."""
    at_work = folder.is_at_work
    return in_order([state_on_disk(step, folder, at_work) for step in steps])


def in_order(states: Sequence[StepState]) -> list[StepState]:
    """The states of all steps, of which those wait whose files were made from what is made anew."""
    by_name = {found.step.name: found for found in states}
    for found in states:
        if found.state == FINISHED and any(by_name[name].state != FINISHED for name in found.step.after):
            found.state = WAITING
    return list(states)


def state_on_disk(step: Step, folder: RunFolder, at_work: bool) -> StepState:
    """State of one step. at_work: whether a process runs it now, if it was begun and has not ended."""
    found = StepState(step)
    job = record_of(folder.step(step.name), JOB_JSON, JOB_FILE)
    ended = record_of(folder.step(step.name), ENDED_JSON, ENDED_FILE)
    if job is not None:
        found.place, found.job, found.log = job["place"], job["job"], Path(job["log"])
        if ended is not None and ended["job"] != job["job"]:
            ended = None
        found.seconds = _seconds(job["started"], now() if ended is None else ended["ended"])
        if ended is not None:
            found.state, found.message = outcome(ended["code"]), ended["message"]
        else:
            found.state = RUNNING if at_work else STOPPED
            found.seconds = found.seconds if at_work else None
    try:
        if isinstance(step.look(), Finished):
            found.state, found.message = FINISHED, ""
        elif found.state == FINISHED:  # the files that it made are not there any more
            found.state = WAITING
    except FolderInUseError as error:
        if found.state != FINISHED:  # a search works in the folder of its supernet, which has ended
            # also for a training that was started by hand
            found.state, found.message = RUNNING, "" if found.state == RUNNING else str(error)
    except (ValueError, OSError) as error:  # files of it that cannot be read
        found.message = found.message or str(error)
    return found


def outcome(code: int) -> str:
    """State of a step whose job has ended with this exit code; shells give signals codes above 128."""
    return FINISHED if code == 0 else STOPPED if code > 128 else FAILED


def progress_table(states: Sequence[StepState], title: str) -> Table:
    """Table of a run at work: how far the trainings are, and where they run."""
    table = Table(title=title)
    table.add_column("step", no_wrap=True)
    for name in ("state", "epoch", "loss", "Dice", "time left", "place"):
        table.add_column(name)
    for one in states:
        table.add_row(styled(one.step.title), styled(one.state, _STYLES.get(one.state, "")), *_progress(one))
    return table


def status_table(states: Sequence[StepState], title: str) -> Table:
    """Table of a run for another shell or day: every step's state, job, time and last line of its log."""
    table = Table(title=title)
    table.add_column("step", no_wrap=True)
    for name in ("state", "job", "time", "epoch", "place"):
        table.add_column(name, no_wrap=True)
    # of all columns, only this one is narrowed for a narrow terminal
    table.add_column("last line of its log")
    for one in states:
        epoch = _progress(one)[0]
        seconds = "" if one.seconds is None else duration_text(one.seconds)
        line = styled(last_line(one.log)[:_SHOWN])
        line.no_wrap, line.overflow = True, "ellipsis"
        state = styled(one.state, _STYLES.get(one.state, ""))
        table.add_row(styled(one.step.title), state, one.job, seconds, epoch, one.place, line)
    return table


def _progress(one: StepState) -> tuple[str, str, str, str, str]:
    """Cells epoch, loss, Dice, time left and place."""
    place = one.place if one.state == RUNNING else ""
    if one.step.training is None or one.state == WAITING:
        return "", "", "", "", place
    now_at = training_progress(one.step.training)
    epoch = "" if now_at.epoch is None else f"{now_at.epoch + 1}/{now_at.epochs or '?'}"
    left = "" if now_at.seconds_left is None or one.state != RUNNING else duration_text(now_at.seconds_left)
    return epoch, _cell(now_at.loss), _cell(now_at.dice), left, place


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _seconds(start: str, end: str) -> float | None:
    try:
        return (datetime.datetime.fromisoformat(end) - datetime.datetime.fromisoformat(start)).total_seconds()
    except (ValueError, TypeError):
        return None
