"""SLURM's own commands, asked and read: partitions, and the states of jobs."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from nnunetv2_slicemamba.common.folders import InputError

# all other states are of jobs that wait, run, or are about to be queued again
_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
}
_WAITING = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
_PATIENCE = 60  # seconds for an answer


class SlurmError(InputError):
    """SLURM does not answer a question; the message has its own words."""


@dataclass(frozen=True)
class SlurmJob:
    """A job as SLURM knows it.

    state: SLURM's word, such as PENDING. reason: why it waits, such as Priority. node: where it runs or ran.
    """

    state: str
    reason: str
    node: str

    @property
    def has_ended(self) -> bool:
        """Whether it will not run again."""
        return self.state in _ENDED

    @property
    def is_waiting(self) -> bool:
        """Whether it is queued, for the first time or again."""
        return self.state in _WAITING


def jobs_in_slurm(jobs: Collection[str]) -> dict[str, SlurmJob]:
    """What SLURM knows of these jobs, by number; those that it has forgotten are missing.

    The queue knows jobs until some minutes after their end. Older ones are in the accounting database, where a cluster
    has one. Raises SlurmError if the queue cannot be asked.
    """
    if not jobs:
        return {}
    try:
        rows = _rows("squeue", "--noheader", "--states=all", f"--jobs={','.join(jobs)}", "--format=%i|%T|%r|%N")
    except SlurmError as error:
        if "Invalid job id" not in str(error):
            raise
        rows = []  # it was the only one, and is forgotten
    found = {number: SlurmJob(state, reason, node) for number, state, reason, node in rows}
    forgotten = [job for job in jobs if job not in found]
    if forgotten:
        try:
            fields = "--format=JobIDRaw,State,NodeList"
            rows = _rows("sacct", "--allocations", "--noheader", "--parsable2", f"--jobs={','.join(forgotten)}", fields)
        except SlurmError:
            rows = []  # a cluster without a database
        found |= {number: SlurmJob(state.split()[0], "", node) for number, state, node in rows}
    return found


def live_jobs(jobs: Collection[str]) -> list[str]:
    """Those of the jobs that wait or run. Raises SlurmError if the queue cannot be asked."""
    known = jobs_in_slurm(jobs)
    return [job for job in jobs if job in known and not known[job].has_ended]


@dataclass(frozen=True)
class Partition:
    """A partition. minutes: its limit of time, None for none."""

    name: str
    is_default: bool
    minutes: int | None


def partitions() -> list[Partition]:
    """The cluster's partitions. Raises SlurmError if SLURM does not answer."""
    found = []
    for name, limit in _rows("sinfo", "--noheader", "--all", "--summarize", "--format=%P|%l"):
        found.append(Partition(name.rstrip("*"), name.endswith("*"), minutes_of(limit)))
    return found


def minutes_of(time: str) -> int | None:
    """Minutes of a time as SLURM writes it, seconds rounded up: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS.

    None for "infinite" and what else is no time.
    """
    days, _, rest = time.rpartition("-")
    parts = rest.split(":")
    if not all(part.isascii() and part.isdigit() and len(part) < 7 for part in [*parts, *([days] if days else [])]):
        return None
    if len(parts) > 3 or time.startswith("-"):
        return None
    values = [int(part) for part in parts]
    if days or len(values) == 3:  # they begin with hours
        hours, minutes, seconds = (*values, 0, 0)[:3]
    else:
        hours, minutes, seconds = (0, *values, 0)[:3]
    return (int(days or 0) * 24 + hours) * 60 + minutes - (-seconds // 60)


def _rows(program: str, *arguments: str) -> list[list[str]]:
    """Lines of a command's answer, cut at '|'."""
    return [line.split("|") for line in ask(program, *arguments).splitlines() if line.strip()]


def ask(program: str, *arguments: str) -> str:
    """What one of SLURM's commands prints. Raises SlurmError with its words if it fails."""
    call: Sequence[str] = [program, *arguments]
    try:
        ended = subprocess.run(call, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except FileNotFoundError as error:
        raise SlurmError(f"there is no {program} on this machine; call this command on one of the cluster") from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"{program} has not answered in {_PATIENCE} s; try again when SLURM answers") from error
    if ended.returncode:
        said = " ".join(ended.stderr.split()) or f"exit code {ended.returncode}"
        raise SlurmError(f"{program} fails: {said}; mend that, or try again when SLURM answers")
    return ended.stdout
