"""A thread that wants silence from a library takes no words from the others, and leaves the streams as they were."""

from __future__ import annotations

import sys
import threading

import pytest

from nnunetv2_slicemamba.common.silence import silently


def test_only_the_thread_that_asks_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    silent, spoken = threading.Event(), threading.Event()

    def read() -> None:
        with silently():
            print("a reader's warning")
            print("a reader's traceback", file=sys.stderr)
            silent.set()
            assert spoken.wait(10)

    reader = threading.Thread(target=read)
    reader.start()
    assert silent.wait(10)
    print("progress")
    spoken.set()
    reader.join()
    assert capsys.readouterr() == ("progress\n", "")


def test_threads_that_ask_at_the_same_time_leave_the_streams_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    start = threading.Barrier(4)

    def read() -> None:
        start.wait()
        for _ in range(50):
            with silently(), silently(errors=False):
                print("a reader's warning")

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("", "")


def test_errors_may_still_be_heard(capsys: pytest.CaptureFixture[str]) -> None:
    with silently(errors=False):
        print("a citation")
        print("an error", file=sys.stderr)
    assert capsys.readouterr() == ("", "an error\n")
