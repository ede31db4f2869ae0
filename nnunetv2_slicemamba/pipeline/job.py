"""A step as a job of submitit: the process that runs its command, and what it leaves; nothing slow is imported."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit

from nnunetv2_slicemamba.common.commands import CommandError, run_command
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.folder_lock import FolderInUseError
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.common.json_reading import JsonKind
from nnunetv2_slicemamba.common.provenance import now
from nnunetv2_slicemamba.common.stopping import end_with_parent, exit_code, handling_signals
from nnunetv2_slicemamba.pipeline.step import Command, made_whole

JOB_FILE, ENDED_FILE = "job.json", "ended.json"
_REMEDY = "Delete it; it only tells of a job that has ended"
JOB_JSON = JsonKind(
    "a record of a job", {"job": str, "place": str, "log": str, "started": str, "command": str}, _REMEDY
)
ENDED_JSON = JsonKind("a record of a job's end", {"job": str, "code": int, "message": str, "ended": str}, _REMEDY)
FAILED = 1


def run_job(command: Command, variables: Mapping[str, str], cores: Sequence[int], folder: str, runner: int) -> None:
    """Runs a step's command and writes how it ended to ENDED_FILE in the step's folder.

    variables: of the step's place. cores: numbers of the cores to stay on. runner: process number of the run; the step
    ends when that one ends, and when submitit's controller does (on Linux). The process ends with the command's exit
    code if that is not 0.
    """
    with recorded(Path(folder)):
        _end_with(runner)
        end_with_parent(os.getppid())
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores)
        run_step(command, variables)


def run_step(command: Command, variables: Mapping[str, str]) -> None:
    """Runs a step's command with the variables of its place. Raises CommandError, SystemExit after a signal."""
    environment = {**command.variables, **variables, "PYTHONUNBUFFERED": "1"}
    with made_whole(command):
        run_command(command.name, command.arguments, PlainConsole(), environment)


@contextlib.contextmanager
def recorded(folder: Path) -> Iterator[list[str]]:
    """Context of a step's work, whose end is written to ENDED_FILE in the step's folder.

    A signal that asks the process to end raises SystemExit. What cannot be worked with becomes the record's message,
    and the process ends with FAILED. Texts that are appended to the list given are the message of work that went well.
    """
    told: list[str] = []
    with handling_signals(_stop):
        code, message = FAILED, "ended before its command"
        try:
            yield told
            code, message = 0, "; ".join(told)
        except SystemExit as end:
            code, message = int(end.code or 0), "stopped"
        except (CommandError, FolderInUseError, ValueError, OSError) as error:
            message = str(error)
            print(message)
        finally:
            ended = {"job": submitit.JobEnvironment().job_id, "code": code, "message": message, "ended": now()}
            write_json(folder / ENDED_FILE, ended)
    if code:
        sys.exit(code)


def _stop(number: int) -> None:
    raise SystemExit(exit_code(number))


def _end_with(process: int) -> None:
    """Has this process asked to end when another one, which is not its parent, ends; on Linux only."""
    if not hasattr(os, "pidfd_open"):
        return
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        os.kill(os.getpid(), signal.SIGTERM)
        return
    except OSError:  # a kernel without
        return

    def watch() -> None:
        select.select([descriptor], [], [])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def record_of(folder: Path, kind: JsonKind, name: str) -> Any:
    """The content of a record in a step's folder; None if there is none that can be read."""
    file = folder / name
    with contextlib.suppress(ValueError):
        return kind.read_if_there(file)
    return None
