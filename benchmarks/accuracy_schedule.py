"""Runs processes a few at a time until the time is over, and says every minute how far each is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

FINISHED, FAILED, STOPPED, NOT_STARTED = "finished", "failed", "stopped", "not started"
GRACE = 15.0  # seconds between SIGINT and SIGKILL


@dataclass(frozen=True)
class Job:
    """A process. after: names of jobs that must have finished. seconds: what it needs; it is not started with less.

    counted: whether it takes one of the places that are shared. state: a file of notes (JSON) on how far it is.
    """

    name: str
    call: Sequence[str]
    log: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    seconds: float = 0.0
    counted: bool = True
    state: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """How a job ended: FINISHED, FAILED, STOPPED or NOT_STARTED; why: in words, for the last three.
    seconds: how long it ran. beside: the other counted jobs that ran at some time while it did."""

    name: str
    ended: str
    why: str = ""
    seconds: float = 0.0
    beside: tuple[str, ...] = ()


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    log: TextIO
    began: float
    beside: set[str]
    place: int | None  # None for a job that is not counted


def run_jobs(
    jobs: Sequence[Job],
    parallel: int,
    deadline: float,
    console: Console,
    ended: Callable[[Outcome], None] = lambda outcome: None,
    every: float = 60.0,
    places: Sequence[Mapping[str, str]] | None = None,
) -> dict[str, Outcome]:
    """Runs jobs in their order as places, time and what they wait for allow; returns how each ended.

    parallel: places for counted jobs. deadline: on time.monotonic's clock; what runs GRACE seconds before it is
    interrupted, then killed, with all its processes. A job for which the time is too short makes way for later ones.
    ended: called as a job ends. every: seconds between two lines on each job that runs. places: environment variables
    of each of the places, which win over the job's own; where several are the same, as on one GPU, jobs are spread.
    """
    waiting, running = list(jobs), list[_Running]()
    places = places or [{}] * parallel
    outcomes: dict[str, Outcome] = {}
    said = time.monotonic()

    def finish(outcome: Outcome) -> None:
        outcomes[outcome.name] = outcome
        console.print(f"{clock()} {outcome.name}: {outcome.ended} {outcome.why}".rstrip(), markup=False)
        ended(outcome)

    try:
        while (waiting or running) and time.monotonic() < deadline - GRACE:
            for job in list(waiting):
                lost = [name for name in job.after if name in outcomes and outcomes[name].ended != FINISHED]
                left = deadline - GRACE - time.monotonic()
                if lost:
                    waiting.remove(job)
                    # what was not started may be another time, and so may what waited for it
                    ending = NOT_STARTED if outcomes[lost[0]].ended == NOT_STARTED else FAILED
                    finish(Outcome(job.name, ending, f"as {lost[0]}: {outcomes[lost[0]].why}"))
                elif left < job.seconds:
                    waiting.remove(job)
                    why = f"{left:.0f} s are left, it needs about {job.seconds:.0f} s"
                    finish(Outcome(job.name, NOT_STARTED, why))
                elif all(name in outcomes for name in job.after) and (
                    not job.counted or sum(r.job.counted for r in running) < parallel
                ):
                    waiting.remove(job)
                    console.print(f"{clock()} {job.name}: started", markup=False)
                    running.append(_start(job, running, places))
            for one in list(running):
                code = one.process.poll()
                if code is not None:
                    running.remove(one)
                    _kill_group(one)
                    ending = FINISHED if code == 0 else FAILED
                    why = "" if code == 0 else f"with exit code {code}, see {one.job.log}"
                    finish(_outcome(one, ending, why))
            if time.monotonic() - said >= every:
                said = time.monotonic()
                for one in running:
                    console.print(f"{clock()} {one.job.name}: {how_far(one.job)}", markup=False, highlight=False)
            time.sleep(0.2)
    finally:
        _stop(running)
        for one in running:
            finish(_outcome(one, STOPPED, "the time was over"))
    for job in waiting:
        finish(Outcome(job.name, NOT_STARTED, "the time was over"))
    return outcomes


def clock() -> str:
    return time.strftime("%H:%M:%S")


def how_far(job: Job) -> str:
    """What a job's notes say, in a line."""
    notes: dict[str, Any] = {}
    if job.state is not None and job.state.is_file():
        notes = json.loads(job.state.read_text())
    seconds, dice = notes.get("epoch_seconds"), notes.get("pseudo_dice")
    if not seconds or not dice:
        return str(notes.get("phase", "running"))
    shown = f"epoch {len(seconds)} of {notes.get('epochs', '?')}, pseudo Dice {dice[-1]:.4f}, {seconds[-1]:.1f} s"
    return shown if notes.get("phase") == "training" else f"{notes.get('phase')} after {shown}"


def last_lines(log: Path, most: int = 15) -> list[str]:
    """The end of what a process wrote."""
    if not log.is_file():
        return []
    lines = log.read_text(errors="replace").splitlines()
    return [line[:300] for line in lines if line.strip()][-most:]


def failure(log: Path) -> list[str]:
    """The last traceback's last lines, else the log's; workers may write on after it."""
    lines = last_lines(log, 400)
    starts = [i for i, line in enumerate(lines) if line.startswith("Traceback")]
    if not starts:
        return lines[-15:]
    traceback = lines[starts[-1] :]
    ends = [i for i, line in enumerate(traceback) if i and not line.startswith(" ")]
    return traceback[: ends[0] + 1 if ends else None][-15:]


def _free_place(running: Sequence[_Running], places: Sequence[Mapping[str, str]]) -> int:
    """The first of the free places whose variables the fewest running jobs have."""
    taken = [one.place for one in running if one.place is not None]
    free = [place for place in range(len(places)) if place not in taken]
    return min(free, key=lambda place: sum(places[other] == places[place] for other in taken))


def _start(job: Job, running: list[_Running], places: Sequence[Mapping[str, str]]) -> _Running:
    place = _free_place(running, places) if job.counted else None
    job.log.parent.mkdir(parents=True, exist_ok=True)
    log = open(job.log, "w")  # noqa: SIM115 - closed when the process has ended
    process = subprocess.Popen(
        job.call,
        env={**os.environ, **job.variables, **({} if place is None else places[place]), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # it is ended with all its workers
    )
    counted = [one for one in running if one.job.counted]
    for one in counted if job.counted else []:
        one.beside.add(job.name)
    return _Running(job, process, log, time.monotonic(), {one.job.name for one in counted}, place)


def _outcome(one: _Running, ending: str, why: str) -> Outcome:
    return Outcome(one.job.name, ending, why, time.monotonic() - one.began, tuple(sorted(one.beside)))


def _stop(running: Sequence[_Running]) -> None:
    for one in running:
        # the process itself only: it ends its workers, or the kill below does
        one.process.send_signal(signal.SIGINT)
    until = time.monotonic() + GRACE - 5
    while time.monotonic() < until and any(one.process.poll() is None for one in running):
        time.sleep(0.1)
    for one in running:
        _kill_group(one)


def _kill_group(one: _Running) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(one.process.pid, signal.SIGKILL)
    one.process.wait()
    one.log.close()
