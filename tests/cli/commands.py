"""Commands called in this process as a user would call them."""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from unittest import mock

from nnunetv2_slicemamba.cli import main


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """What was printed on standard error, on one line."""
        return " ".join(self.err.split())


def called(*arguments: str) -> Ended:
    """Runs `slicemamba ARGUMENTS`; environment variables that it sets are its own."""
    with (
        mock.patch.dict(os.environ),
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        try:
            main(arguments)
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())


def broken_promise(ended: Ended) -> str | None:
    """What is wrong with the end of a command that was given anything; None where it is done, or refused properly."""
    if "Traceback" in ended.err:
        return f"shows a traceback: {ended.message}"
    if ended.code not in (0, 2):
        return f"ends with {ended.code}: {ended.message}"
    if ended.code == 2 and "error" not in ended.err.lower():
        return f"gives no error: {ended.message}"
    return "sends control characters to the terminal" if "\x1b" in ended.out + ended.err else None
