"""Output of a command is shown as its latest line, and a log file is never silent for long."""

from __future__ import annotations

import io
import sys
import time

import pytest
from rich.console import Console

from nnunetv2_slicemamba.common.commands import run_process
from nnunetv2_slicemamba.common.watch import Watch, WatchAll

LONG = "a line of more words than a terminal is wide " * 5


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which the test sets."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_log_file_says_now_and_then_that_work_goes_on(clock: list[float]) -> None:
    shown = io.StringIO()
    with Watch(Console(file=shown), silence=8) as watch:
        clock[0] += 8
        watch.look_at_the_time()
        watch.read("2026-03-02 10:00:00.1: reading cases\n")
        for _ in range(10):
            clock[0] += 2
            watch.look_at_the_time()
        watch.read(f"{LONG}\n")
        clock[0] += 8
        watch.look_at_the_time()
    assert shown.getvalue().splitlines() == [
        "  at work for 8.0 s",
        "  at work for 16.0 s: reading cases",
        "  at work for 24.0 s: reading cases",
        f"  at work for 36.0 s: {LONG[:80]}...",
    ]


def test_a_terminal_shows_the_latest_line_in_one_place(clock: list[float]) -> None:
    shown = io.StringIO()
    with Watch(Console(file=shown, force_terminal=True, width=60), silence=8) as watch:
        watch.read("reading cases\n")
        clock[0] += 100
        watch.look_at_the_time()
        for without_words in ("\n", "#####\n", "2026-03-02 10:00:00.1: {'batch_size': 2}\n"):
            watch.read(without_words)
        assert watch.latest == "reading cases"
    assert "at work" not in shown.getvalue()
    assert shown.getvalue().count("\n") == 1
    assert shown.getvalue().endswith("\x1b[1A\x1b[2K"), "it is erased at the end"


def test_warnings_of_ours_stay_in_one_line() -> None:
    shown = io.StringIO()
    with Watch(Console(file=shown)) as watch:
        watch.read(f"warning: {LONG}\n")
        watch.read("UserWarning: of a library\n")
    assert shown.getvalue() == f"warning: {LONG.strip()}\n"


def test_all_output_of_a_command_can_be_passed_on_and_none_is_cut() -> None:
    shown = io.StringIO()
    code = f"import sys; print({LONG!r}); print(); print('[bold]', file=sys.stderr); sys.stdout.buffer.write(b'\\xff')"
    result, output, asked = run_process([sys.executable, "-uc", code], {}, WatchAll(Console(file=shown)))
    assert (result, asked) == (0, None)
    assert shown.getvalue() == f"{LONG}\n\n[bold]\n\ufffd\n"
    assert shown.getvalue().startswith(output)
