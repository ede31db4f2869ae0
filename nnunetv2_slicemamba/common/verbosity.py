"""Verbosity of commands: results and errors alone, the usual, or more. Warnings are one line each.

The choice is an environment variable, so that it also holds for the commands that a command starts.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from nnunetv2_slicemamba.common.console import PlainConsole, styled

VARIABLE = "SLICEMAMBA_VERBOSITY"
QUIET, VERBOSE = "quiet", "verbose"


class SliceMambaWarning(UserWarning):
    """Warning for users of this package."""


def set_verbosity(level: str) -> None:
    """Sets QUIET or VERBOSE for this process and for those that it starts."""
    os.environ[VARIABLE] = level


def is_quiet() -> bool:
    """True where only results and errors are wanted."""
    return os.environ.get(VARIABLE) == QUIET


def is_verbose() -> bool:
    """True where warnings of libraries and tracebacks are wanted, too."""
    return os.environ.get(VARIABLE) == VERBOSE


def progress_console() -> PlainConsole:
    """The console for what tells how work goes on; it prints nothing where only results are wanted."""
    return PlainConsole(quiet=is_quiet())


@contextlib.contextmanager
def spinner(text: str) -> Iterator[None]:
    """Context in which a terminal shows `text` behind a spinner, and nothing afterwards. A log file gets nothing."""
    console = progress_console()
    with console.status(styled(text)) if console.is_terminal else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def libraries_heard() -> Iterator[None]:
    """Context in which what libraries print, their bars too, is dropped where only results are wanted."""
    with contextlib.ExitStack() as stack:
        if is_quiet():
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield


def show_warnings_as_lines() -> None:
    """Has this process print its warnings as one line each, once, and those of libraries where more is wanted."""
    before, told = warnings.showwarning, set[str]()
    console = PlainConsole(stderr=True)
    console.file = sys.stderr  # of now: where libraries are not heard, our warnings are

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, SliceMambaWarning):
            line = " ".join(str(message).split())
            if line in told:
                return
            told.add(line)
            console.print(styled("warning: ", "yellow").append_text(styled(line)))
        elif is_verbose():
            before(message, category, *place, **more)

    if not sys.warnoptions:  # python -W asks for Python's own way
        warnings.showwarning = show
