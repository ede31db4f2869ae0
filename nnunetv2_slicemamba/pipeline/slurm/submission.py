"""Submission of a run's steps to SLURM as jobs that follow one another."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from nnunetv2_slicemamba.common.folders import FOLDERS, InputError, named_folder
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.common.json_reading import JsonFileError
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.pipeline.job import ENDED_FILE, JOB_FILE
from nnunetv2_slicemamba.pipeline.run_folder import RUN_FILE, RUN_JSON, RunFolder
from nnunetv2_slicemamba.pipeline.slurm.client import ask, live_jobs
from nnunetv2_slicemamba.pipeline.slurm.job import StepJob
from nnunetv2_slicemamba.pipeline.slurm.options import SlurmOptions
from nnunetv2_slicemamba.pipeline.step import TRAINING, Finished, Step

# submitit counts how often a job's time was over: as often as needed
_TIMES = 1_000_000
_WITH_NETWORK = ("supernet", "search", TRAINING, "predict")
_CARRIED = ("nnUNet_", "SLICEMAMBA_", "PYTHONPATH")


@dataclass(frozen=True)
class Submitted:
    """A step that was submitted: the number of its job, and how it follows others, as sbatch takes it."""

    step: Step
    job: str
    dependency: str | None


def submit_run(steps: Sequence[Step], folder: RunFolder, options: SlurmOptions, device: str) -> list[Submitted]:
    """Submits the steps of a run that are not finished. The run's description must have been written.

    A step follows those that it needs, if they succeed; a step of all folds follows the folds, however they end. Raises
    InputError, FolderInUseError or another error of a step's files before anything is submitted. If SLURM refuses a
    job, those submitted before are cancelled.
    """
    submitted: dict[str, Submitted] = {}
    needed = unfinished_steps(steps)
    for step in needed:
        for name in (JOB_FILE, ENDED_FILE):
            (folder.step(step.name) / name).unlink(missing_ok=True)
    with _cancelling_on_error(submitted):
        for step in needed:
            before = [submitted[name] for name in step.after if name in submitted]
            dependency = dependency_of(step, before)
            job = _submit(step, folder, options, device, dependency)
            submitted[step.name] = Submitted(step, job, dependency)
            _write_jobs(folder, {name: one.job for name, one in submitted.items()})
    return list(submitted.values())


def unfinished_steps(steps: Sequence[Step]) -> list[Step]:
    """The steps that are not finished, and those after them. Raises what looking at a step's files raises."""
    found: dict[str, Step] = {}
    for step in steps:
        if any(name in found for name in step.after) or not isinstance(step.look(), Finished):
            found[step.name] = step
    return list(found.values())


def dependency_of(step: Step, before: Sequence[Submitted]) -> str | None:
    """How a step follows others, as sbatch's --dependency takes it; None for one that follows none."""
    if not before:
        return None
    after_folds = not step.fold and any(one.step.fold for one in before)
    return ":".join(["afterany" if after_folds else "afterok", *(one.job for one in before)])


def sbatch_options(step: Step, options: SlurmOptions, device: str) -> dict[str, str | bool]:
    """The options of sbatch for a step's job: those that were given, one GPU for a network, and the run's own."""
    ours: dict[str, str | bool] = {"requeue": True, "kill-on-invalid-dep": "yes"}
    if device == "cuda" and step.kind in _WITH_NETWORK and not options.asks_for_gpu:
        ours["gpus-per-node"] = "1"
    return {**options.sbatch, **ours}


def _submit(step: Step, folder: RunFolder, options: SlurmOptions, device: str, dependency: str | None) -> str:
    """Submits a step; the number of its job. Raises InputError if SLURM refuses it."""
    executor = submitit.SlurmExecutor(folder.step(step.name), max_num_timeout=_TIMES)
    cores = options.sbatch.get("cpus-per-task")
    # srun does not take it over from sbatch since SLURM 22.05
    srun = [f"--cpus-per-task={cores}"] if cores else []
    nodes = options.search_nodes if step.kind == "search" else 1
    if nodes > 1:
        executor.update_parameters(nodes=nodes, ntasks_per_node=1)
        # the other nodes would wait for one that has failed; those that have ended wait for the first one, which draws
        # figures and holds finals, however long clusters let a job's tasks do so
        srun += ["--kill-on-bad-exit=1", "--wait=0"]
    executor.update_parameters(
        time=options.minutes,
        job_name=f"{folder.path.parents[1].name}.{step.name}",
        dependency=dependency,
        stderr_to_stdout=True,
        srun_args=srun,
        additional_parameters=sbatch_options(step, options, device),
    )
    work = StepJob(str(folder.path.resolve()), step.name, carried_variables(), options.minutes)
    with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what the error says
        return str(executor.submit(work).job_id)


def carried_variables() -> dict[str, str]:
    """Variables of this process that a job needs, whatever the cluster hands on; nnU-Net's folders by whole paths."""
    found = {name: value for name, value in os.environ.items() if name.startswith(_CARRIED)}
    folders = {name: folder for name in FOLDERS if (folder := named_folder(name)) is not None}
    return {**found, **{name: str(folder.absolute()) for name, folder in folders.items()}}


@contextlib.contextmanager
def _cancelling_on_error(submitted: Mapping[str, Submitted]) -> Iterator[None]:
    """Context whose error cancels what was submitted; an error of sbatch becomes InputError."""
    try:
        yield
    except BaseException as error:
        left = _taken_back([one.job for one in submitted.values()])
        if not isinstance(error, (FailedJobError, FailedSubmissionError)):
            raise
        said = " ".join(str(error).split()).removeprefix("sbatch: error: ")
        raise InputError(f"sbatch refuses a job: {said}; {left}. Correct --partition, --account or --sbatch") from error


def _taken_back(jobs: Sequence[str]) -> str:
    """Cancels jobs, and says what became of them."""
    if not jobs:
        return "nothing was submitted"
    try:
        cancel_jobs(jobs)
    except InputError as error:
        return f"jobs submitted before it are left ({error}), end them with '{shell_line('scancel', *jobs)}'"
    return f"jobs submitted before it are cancelled: {', '.join(jobs)}"


def cancel_jobs(jobs: Sequence[str]) -> None:
    """Cancels jobs, the last one first, so that none begins because another one ends. Raises SlurmError."""
    if jobs:
        ask("scancel", *reversed(jobs))


def _write_jobs(folder: RunFolder, jobs: Mapping[str, str]) -> None:
    write_json(folder.file, {**RUN_JSON.read(folder.file), "jobs": dict(jobs)})


def refuse_live_jobs(steps_folder: Path) -> None:
    """Raises InputError if a run of the dataset has jobs that wait or run, or SLURM does not say whether it has.

    steps_folder: the folder of the dataset's runs.
    """
    for file in sorted(steps_folder.glob(f"*/{RUN_FILE}")):
        with contextlib.suppress(JsonFileError):
            jobs = list((RUN_JSON.read(file).get("jobs") or {}).values())
            try:
                live = live_jobs(jobs)
            except InputError as error:
                raise InputError(
                    f"{file} names jobs of SLURM, and whether they have ended is not known: {error}. If they have, "
                    "delete that file"
                ) from error
            if live:
                dataset = steps_folder.parent.name
                raise InputError(
                    f"{len(live)} jobs of SLURM run or wait for {file.parent.name}: {', '.join(live)}. Two runs of a "
                    f"data set would write over each other: wait for that one, or end it with 'slicemamba cancel -d "
                    f"{dataset}'"
                )
