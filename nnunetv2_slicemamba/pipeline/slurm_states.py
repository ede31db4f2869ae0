"""States of the steps that were submitted to SLURM: what files tell, and what SLURM knows of their jobs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from submitit.core.utils import JobPaths

from nnunetv2_slicemamba.pipeline.job import JOB_FILE, JOB_JSON, record_of
from nnunetv2_slicemamba.pipeline.progress import last_line
from nnunetv2_slicemamba.pipeline.run_folder import RunFolder, older_name
from nnunetv2_slicemamba.pipeline.slurm.client import SlurmJob, jobs_in_slurm
from nnunetv2_slicemamba.pipeline.states import (
    FAILED,
    FINISHED,
    QUEUED,
    REQUEUED,
    RUNNING,
    STOPPED,
    WAITING,
    StepState,
    in_order,
    state_on_disk,
)
from nnunetv2_slicemamba.pipeline.step import Step


def states_in_slurm(steps: Sequence[Step], folder: RunFolder, jobs: Mapping[str, str]) -> list[StepState]:
    """States of a run's steps. jobs: number of each step that was submitted. Raises SlurmError without an answer."""
    known = jobs_in_slurm(jobs.values())
    states = []
    for step in steps:
        number = jobs.get(step.name, jobs.get(older_name(step.name)))
        if number is None:  # finished before
            states.append(state_on_disk(step, folder, at_work=False))
            continue
        job = known.get(number)
        record = record_of(folder.step(step.name), JOB_JSON, JOB_FILE)
        began = record is not None and record["job"] == number
        runs = job is not None and not job.has_ended and not job.is_waiting
        found = state_on_disk(step, folder, at_work=runs)
        if not began:
            found.job, found.log = number, JobPaths(folder.step(step.name), job_id=number, task_id=0).stdout
        _add(found, job, began)
        states.append(found)
    return in_order(states)


def _add(found: StepState, job: SlurmJob | None, began: bool) -> None:
    """Adds what SLURM knows of a step's job, None for one that it has forgotten. began: whether its work has begun."""
    if found.state == FINISHED and (job is None or job.has_ended):
        return
    if job is None:
        if not began and found.state == WAITING and last_line(found.log):
            found.state, found.message = FAILED, _before_it_began(found, "")
    elif job.is_waiting:
        follows = job.reason == "Dependency"
        found.state = REQUEUED if began else WAITING if follows else QUEUED
        found.place, found.seconds, found.message = "" if follows else f"({job.reason})", None, ""
    elif not job.has_ended:
        found.place = job.node
        if not began:
            found.state = RUNNING
    elif not began:
        if job.state != "CANCELLED":
            found.state, found.place, found.message = FAILED, job.node, _before_it_began(found, job.node)
    elif found.state == STOPPED and job.state not in ("CANCELLED", "COMPLETED"):
        said = last_line(found.log)
        found.state, found.message = FAILED, f"SLURM ended its job: {job.state}{f' ({said})' if said else ''}"


def _before_it_began(found: StepState, node: str) -> str:
    """The message of a job that has ended before this package's code in it ran."""
    where = f" on node {node}" if node else ""
    said = last_line(found.log)
    if said:
        return f"its job ended{where} before it began: {said}. Every node needs this package, in {sys.executable}"
    return f"its job ended{where} before it began, and left no log. Every node must see its folder: {found.log}"
