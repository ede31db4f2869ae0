"""Signals that ask a process to end, noticed, sent on to children, and sent by the end of a parent."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

# what `kill` and batch systems send, what Ctrl-C sends, what a closed terminal sends
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
# A batch system, a terminal and a parent may each pass on the same request: within these seconds it counts once.
SAME_REQUEST_SECONDS = 3.0
ENDING_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def exit_code(number: int) -> int:
    """Exit code of a process that a signal ended, as shells give it: 143 for SIGTERM, 130 for Ctrl-C."""
    return 128 + number


@contextlib.contextmanager
def handling_signals(handle: Callable[[int], None]) -> Iterator[None]:
    """Context in which `handle(number)` is called for every request to end, in place of what happened before.

    Repeats of a request within SAME_REQUEST_SECONDS are left out. Signals that the process was started to ignore
    (nohup) stay ignored. Processes forked meanwhile ignore Ctrl-C, which is this one's to answer, and are ended by the
    others. Does nothing outside the main thread, which alone may handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner, before = os.getpid(), {}
    latest = -float("inf")

    def notice(number: int, frame: Any) -> None:
        nonlocal latest
        if os.getpid() != owner:
            if number != signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        now = time.monotonic()
        if now - latest >= SAME_REQUEST_SECONDS:
            latest = now
            handle(number)

    try:
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, notice)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def noticing_signals() -> Iterator[list[int]]:
    """Context in which a first request to end only appends its signal to the list given; a second one ends at once."""
    noticed: list[int] = []

    def notice(number: int) -> None:
        if noticed:
            end_at_once(number)
        noticed.append(number)

    with handling_signals(notice):
        yield noticed


def end_at_once(number: int) -> None:
    """Ends this process as the signal does where nobody handles it: Ctrl-C by KeyboardInterrupt, others without."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Context in which Ctrl-C raises KeyboardInterrupt, and the process has ended ENDING_SECONDS later in any case.

    Unless the block ends well, that is, because somebody answered the interruption and went on. Pools of processes may
    wait for ever for a worker that Ctrl-C has ended. What is left of the process's children is killed then. Repeats
    within SAME_REQUEST_SECONDS are left out: a terminal sends the signal, and so does a parent.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    owner, latest = os.getpid(), -float("inf")
    timer = threading.Timer(ENDING_SECONDS, _give_up)
    timer.daemon = True

    def interrupt(number: int, frame: Any) -> None:
        nonlocal latest
        if os.getpid() == owner:
            now = time.monotonic()
            if now - latest < SAME_REQUEST_SECONDS:
                return
            latest = now
            if not timer.is_alive():
                timer.start()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
        timer.cancel()
    finally:
        signal.signal(signal.SIGINT, before)


def _give_up() -> None:
    for child in multiprocessing.active_children():
        child.kill()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(exit_code(signal.SIGINT))


def end_with_parent(parent: int) -> None:
    """Has the system end this process by SIGTERM when its parent ends, however that ends; on Linux only.

    parent: process number of the parent. Where that one has ended already, this process ends now.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # it may have ended before that call
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def end_forked_processes_with_this_one() -> None:
    """Has processes that this one forks from now on end when it ends, however that ends; on Linux only.

    Loaders of batches would otherwise wait for ever for a training that was killed.
    """
    if sys.platform != "linux" or _forking.ends_with == os.getpid():
        return
    if _forking.ends_with is None:
        os.register_at_fork(before=_forking.before, after_in_child=_forking.in_child)
    _forking.ends_with = os.getpid()


class _Forking:
    """The process whose forks end with it, None before any; and whether a fork comes from its main thread."""

    def __init__(self) -> None:
        self.ends_with: int | None = None
        self.in_main_thread = False

    def before(self) -> None:
        # the system looks at the thread that forks, and other threads end before their process
        self.in_main_thread = threading.current_thread() is threading.main_thread()

    def in_child(self) -> None:
        if self.in_main_thread and os.getppid() == self.ends_with:
            end_with_parent(os.getppid())


_forking = _Forking()
