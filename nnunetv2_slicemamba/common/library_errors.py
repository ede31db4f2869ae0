"""Errors that a library raises for a user's input, told as such where the library is called."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

from nnunetv2_slicemamba.common.folders import InputError

PACKAGE = __name__.partition(".")[0]


@contextlib.contextmanager
def library_errors(library: str, what: str, remedy: str) -> Iterator[None]:
    """Raises InputError, which tells reason and remedy, where `library` raises an error in the block.

    library: name of a top-level package. what: what it cannot do. Errors that this package raises pass unchanged, also
    where the library calls it, and so do refusals of the operating system and of memory, which name file or size.
    """
    try:
        yield
    except Exception as error:
        system = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None)
        if system or origin(error, (PACKAGE, library)) != library:
            raise
        reason = " ".join(str(error).split())
        kind = "" if isinstance(error, RuntimeError) and reason else f"{type(error).__name__}: "
        raise InputError(f"{what} ({kind}{reason or 'without a reason'}); {remedy}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for a log; PyTorch's go on with hints for its developers."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def origin(error: BaseException, packages: tuple[str, ...]) -> str | None:
    """The one of these top-level packages whose code, or what it called, raised the error; None for none of them."""
    modules = [str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((name for name in (m.partition(".")[0] for m in reversed(modules)) if name in packages), None)
