"""The process beside a search that copies its evaluations into an Optuna study, for Optuna's dashboard.

Optuna's own way of adding a trial takes longer than a GPU needs for an evaluation. In a process of its own it takes
nothing from the search, and is done soon after it. What it does not get done, the same command does the next time: the
study is a copy, nothing is read from it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console

from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.search.ledger.evaluation_log import EvaluationLog
from nnunetv2_slicemamba.search.ledger.ledger import Ledger
from nnunetv2_slicemamba.search.ledger.storage import LedgerError, is_url, location_of
from nnunetv2_slicemamba.search.ledger.study import StudyRefusedError, copy_log

POLL_SECONDS = 0.5
# not `-m`, which would look for modules in the working folder first
START = f"import sys; sys.path[:] = filter(None, sys.path); from {__name__} import main; main()"
PATIENCE_SECONDS = 300.0  # for a server that is away
WAIT_SECONDS = 5.0  # for what is left at the end of the search, which ends by itself
NICENESS = 10


class StudyExport:
    """Copies a ledger into its study while the block runs, and after it what is left.

    At the end of a block that ended well it is waited for, WAIT_SECONDS at most; it goes on by itself, also when this
    process is killed. console: for what could not be done.
    """

    def __init__(self, ledger: Ledger, console: Console | None = None) -> None:
        self._ledger, self._console = ledger, console or PlainConsole()
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> StudyExport:
        storage = self._ledger.storage
        order = {
            "folder": str(self._ledger.log.folder.absolute()),
            "search": self._ledger.log.search,
            "storage": str(storage if is_url(storage) else Path(storage).absolute()),
            "patience": PATIENCE_SECONDS,
            "niceness": NICENESS,
        }
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8")
        try:
            self._process = self._started(order)
        except OSError as error:  # the search does not need the study
            self._say(f"{self._study} is not written during the search: {error}. The same command completes it.")
        return self

    def _started(self, order: dict[str, Any]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", START],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is for the search
        )
        assert process.stdin is not None
        # not among the arguments, which everybody may read: a URL may have a password
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        return process

    @property
    def _study(self) -> str:
        return f"The study for Optuna in {location_of(self._ledger.storage)}"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            if kind is None:
                self._wait_for(self._process)
        self._said.close()

    def _wait_for(self, process: subprocess.Popen[str]) -> None:
        try:
            if code := process.wait(WAIT_SECONDS):
                self._say(
                    f"{self._study} was not completed: {self._last_said() or f'exit code {code}'}. All evaluations are "
                    f"kept in {self._ledger.location}; the same command completes it."
                )
        except subprocess.TimeoutExpired:
            waits = self._last_said()
            self._say(f"{self._study} is still being written{f': {waits}' if waits else ', and soon whole'}.")

    def _last_said(self) -> str:
        self._said.seek(0)
        return (self._said.read().strip().splitlines() or [""])[-1].removesuffix(".")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """The process itself: reads its order from standard input, and ends when that is closed and all is copied."""
    order = json.loads(sys.stdin.readline())
    if hasattr(os, "nice"):
        os.nice(order["niceness"])
    is_over = threading.Event()

    def wait_for_end() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        is_over.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    log = EvaluationLog(Path(order["folder"]), order["search"])
    try:
        copy_log(
            log,
            order["storage"],
            lambda: is_over.wait(POLL_SECONDS),
            timeout=-1,
            patience=order["patience"],
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
    except (LedgerError, StudyRefusedError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
