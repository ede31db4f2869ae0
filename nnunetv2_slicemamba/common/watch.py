"""What is shown of a command's output while the command works."""

from __future__ import annotations

import re
import time
from types import TracebackType

from rich.console import Console

from nnunetv2_slicemamba.common.console import styled
from nnunetv2_slicemamba.common.durations import duration_text

SILENCE_SECONDS = 300.0
SHOWN = 80  # characters of the latest line, in a line that says that work goes on
MOMENT = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+: ")  # before every line of nnU-Net's trainings
WITHOUT_WORDS = re.compile(r"\W*$|\{")  # rules of ####, and dictionaries that nnU-Net prints
WARNING = "warning: "  # begin of a line with a warning of ours


class Watch:
    """A command's output, of which the latest line is shown behind a spinner; warnings of ours stay.

    Where the console is no terminal (a log file), a line says that work goes on, `silence` seconds after the last one.
    A context manager around the command.
    """

    shows_all = False  # so that nothing is left to show when the command fails

    def __init__(self, console: Console, silence: float = SILENCE_SECONDS) -> None:
        self.console, self.silence = console, silence
        self.latest = ""
        self._status = console.status("starting")
        self._began = self._told = time.monotonic()

    def __enter__(self) -> Watch:
        self._began = self._told = time.monotonic()
        if self.console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._status.stop()

    def read(self, line: str) -> None:
        """Takes a line of the output."""
        text = MOMENT.sub("", line).strip()
        if text.startswith(WARNING):
            self.tell(text)
        elif not WITHOUT_WORDS.match(text):
            self.show(text)

    def show(self, text: str) -> None:
        """Shows what the command does now, until there is something newer."""
        self.latest = text
        self._status.update(styled(text[: max(20, self.console.width - 4)]))

    def tell(self, text: str) -> None:
        """Prints a line that stays."""
        self._told = time.monotonic()
        self.console.print(styled(text), soft_wrap=True)

    def look_at_the_time(self) -> None:
        """Called every second at least."""
        now = time.monotonic()
        if not self.console.is_terminal and now - self._told >= self.silence:
            latest = self.latest if len(self.latest) <= SHOWN else f"{self.latest[:SHOWN]}..."
            self.tell(f"  at work for {duration_text(now - self._began)}{f': {latest}' if latest else ''}")


class WatchAll(Watch):
    """A command's output as it comes, for a log file."""

    shows_all = True

    def read(self, line: str) -> None:
        self.latest = line.strip() or self.latest
        self.tell(line.rstrip("\n"))
