"""Jobs whose commands are a few lines of Python: what starts and ends them is real, what they do takes no time.

`python -m tests.pipeline.stand_in_job FOLDER CODE ...` runs a step per CODE, all at once, in FOLDER.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from nnunetv2_slicemamba.common.commands import CommandError, run_process
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.common.other_processes import host
from nnunetv2_slicemamba.common.stopping import exit_code
from nnunetv2_slicemamba.pipeline import at_once, job
from nnunetv2_slicemamba.pipeline.run_folder import RunFolder
from nnunetv2_slicemamba.pipeline.step import Command, Finished, Step


def run_stand_in_job(command: Command, *rest: Any) -> None:
    """run_job, whose command is what Python is given."""
    job.run_command = run_python
    job.run_job(command, *rest)


def run_python(name: str, arguments: Sequence[str], console: Console, variables: Mapping[str, str]) -> None:
    code, _, asked = run_process([sys.executable, "-c", *arguments], {**os.environ, **variables}, None)
    if asked:
        sys.exit(exit_code(asked))
    if code:
        raise CommandError(f"it failed with {code}")


def stand_in_step(name: str, code: str, made: Path, after: Sequence[str] = ()) -> Step:
    """A step that runs `code`, which finds the file that finishes the step in sys.argv[1]."""

    def look() -> Command | Finished:
        return Finished() if made.is_file() else Command("python", (code, str(made)))

    return Step(name, "", name, tuple(after), look)


def place(name: str = "place", cores: Sequence[int] = (), variables: Callable[[], dict] = dict) -> Any:
    """A place for steps."""
    return SimpleNamespace(name=name, cores=tuple(cores or os.sched_getaffinity(0)), variables=variables)


def main() -> None:
    folder = RunFolder(Path(sys.argv[1]))
    at_once.run_job = run_stand_in_job
    steps = [stand_in_step(f"step{i}", code, folder.path / f"made_{i}") for i, code in enumerate(sys.argv[2:])]
    with at_once.only_run(folder):
        said: dict[str, Any] = {"command": "again", "process": os.getpid(), "host": host(), "started": "now"}
        asked = {"dataset": "", "configuration": "", "plans_name": "", "folds": []}
        settings = {"trainer": "", "supernet_trainer": "", "device": "", "search_arguments": []}
        settings |= {"npz": False, "predict": False}
        write_json(folder.file, {**asked, "settings": settings, **said})
        at_once.run_at_once(steps, [place() for _ in steps], folder, PlainConsole())


if __name__ == "__main__":
    main()
