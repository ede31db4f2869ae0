"""Silence of libraries that print what nobody asked for, in one thread and not in the others."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

# one thread at a time changes the process's streams: whoever puts them back must find them as he left them
_CHANGING = threading.RLock()


class _OthersOnly:
    """Stream that drops what the thread that made it writes, and hands on what other threads write."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._silent = stream, threading.get_ident()

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._silent else int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def silently(*, errors: bool = True) -> Iterator[None]:
    """Context in which this thread prints nothing; errors: nothing to standard error either.

    Other threads print as before. Those that want silence, too, wait for it.
    """
    with _CHANGING, contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(_OthersOnly(sys.stdout)))
        if errors:
            stack.enter_context(contextlib.redirect_stderr(_OthersOnly(sys.stderr)))
        yield
