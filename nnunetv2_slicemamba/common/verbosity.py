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
    if level == QUIET:
        os.environ["TQDM_DISABLE"] = "1"  # bars of nnU-Net


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
def libraries_heard() -> Iterator[None]:
    """Context in which what libraries print is dropped where only results are wanted."""
    with contextlib.redirect_stdout(io.StringIO()) if is_quiet() else contextlib.nullcontext():
        yield


def show_warnings_as_lines() -> None:
    """Has this process print its warnings as one line each, once, and those of libraries where more is wanted."""
    before, told = warnings.showwarning, set[str]()

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, SliceMambaWarning):
            line = " ".join(str(message).split())
            if line in told:
                return
            told.add(line)
            PlainConsole(stderr=True).print(styled("warning: ", "yellow").append_text(styled(line)))
        elif is_verbose():
            before(message, category, *place, **more)

    if not sys.warnoptions:  # python -W asks for Python's own way
        warnings.showwarning = show
