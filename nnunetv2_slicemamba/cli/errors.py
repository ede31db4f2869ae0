"""Errors that end a command: which are told to the user as one message, and which are bugs with a report to send."""

from __future__ import annotations

import dis
import errno
import os
import platform
import sys
import tempfile
import time
import traceback

from nnunetv2_slicemamba.common.console import PlainConsole, styled
from nnunetv2_slicemamba.common.library_errors import PACKAGE
from nnunetv2_slicemamba.common.provenance import installed_versions
from nnunetv2_slicemamba.common.verbosity import is_verbose

INPUT, BUG = 2, 1
RAISE = dis.opmap["RAISE_VARARGS"]  # instruction of a raise statement
REMEDIES = {
    errno.ENOENT: "check the path",
    errno.EACCES: "change its permissions, or name another folder",
    errno.EPERM: "change its permissions, or name another folder",
    errno.EROFS: "name a folder on a disk that can be written",
    errno.ENOSPC: "make room on the disk; the same command continues",
    errno.EDQUOT: "make room in your quota; the same command continues",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "name a folder where one is needed",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "remove the links that lead in a circle",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.EIO: "the disk cannot be read; copy the file anew",
}


def show_error(error: Exception) -> int:
    """Prints what ended a command, on standard error; returns the exit code: INPUT, or BUG where nobody foresaw it."""
    console = PlainConsole(stderr=True)
    message = message_of(error)
    if message is not None:
        kept = f"\nTraceback: {keep_traceback(error)}" if is_verbose() else ""
        console.print(styled("error: ", "bold red").append_text(styled(f"{message}{kept}")))
        return INPUT
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    console.print(
        styled("error: ", "bold red").append_text(styled(f"{what}\nThis is a bug in SliceMamba, not in your input. ")),
        styled(f"Please report it with {keep_traceback(error)} and the output of `slicemamba doctor`."),
        sep="",
    )
    return BUG


def message_of(error: Exception) -> str | None:
    """What to tell the user; None for an error that nobody foresaw.

    Foreseen are this package's own error types and whatever it raises itself, refusals of the operating system, and
    memory that does not suffice. An error from within a library is not: where a user's input can cause it, the call of
    the library converts it.
    """
    if type(error).__module__.partition(".")[0] == PACKAGE or is_raised_here(error):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return refusal(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # PyTorch's, on a GPU
        return (
            f"memory does not suffice ({str(error) or 'MemoryError'}); end other programs, or give less to do at once"
        )
    return None


def is_raised_here(error: Exception) -> bool:
    """True if a `raise` of this package raised the error: its message was written for users."""
    step = error.__traceback__
    if step is None or isinstance(error, AssertionError):  # an assertion raises, too, and is for us
        return False
    while step.tb_next is not None:
        step = step.tb_next
    module = str(step.tb_frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] == PACKAGE and step.tb_frame.f_code.co_code[step.tb_lasti] == RAISE


def refusal(error: OSError) -> str:
    """What the operating system refuses: the file, the reason, the remedy."""
    named = [str(name) for name in (error.filename, error.filename2) if name is not None]
    where = f"{' -> '.join(named)}: " if named else ""
    remedy = REMEDIES.get(error.errno or 0)
    return f"{where}{error.strerror}{f'; {remedy}' if remedy else ''}"


def keep_traceback(error: Exception) -> str:
    """Writes the traceback to a new file that only its owner can read; returns its path, or why there is none."""
    moment = time.strftime("%Y%m%dT%H%M%S")
    lines = [f"{name} {version}\n" for name, version in installed_versions().items()]
    lines += [f"{platform.platform()}\n\n", *traceback.format_exception(error)]
    try:
        with tempfile.NamedTemporaryFile(
            "w",
            prefix=f"slicemamba_error_{moment}_{os.getpid()}_",
            suffix=".txt",
            delete=False,
            encoding="utf-8",
            errors="backslashreplace",
        ) as file:
            file.writelines(lines)
    except OSError as refused:
        sys.stderr.writelines(lines)
        return f"the traceback above (it could not be written to a file: {refused})"
    return file.name
