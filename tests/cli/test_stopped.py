"""A command that is stopped says what is kept, and which command goes on."""

from __future__ import annotations

import pytest

from nnunetv2_slicemamba.cli.stopped import KEPT
from nnunetv2_slicemamba.common.names import WITHIN_VARIABLE
from tests.cli.commands import called
from tests.cli.test_bad_values import COMMANDS

ARGUMENTS = ("slicing", "-d", "9", "-c", "2d", "-f", "0", "--set", "2x4")


@pytest.mark.parametrize(("end", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_a_stopped_command_says_what_is_kept_and_what_goes_on(
    end: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise end

    monkeypatch.setattr("nnunetv2_slicemamba.planning.selection.select", stop)
    monkeypatch.setattr("sys.argv", ["slicemamba", *ARGUMENTS, "-q"])
    ended = called(*ARGUMENTS, "-q")
    assert ended.code == code
    again = "slicemamba slicing -d 9 -c 2d -f 0 --set 2x4 -q"
    assert ended.out == ""
    assert ended.err == f"Stopped: the folds that are done are kept, and this goes on: {again}\n"
    monkeypatch.setenv(WITHIN_VARIABLE, "1")  # the command that started it says it
    assert called(*ARGUMENTS).err == ""


def test_an_end_that_nobody_asked_for_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Stopped" not in called("report", "-d", "77").err


def test_what_is_kept_is_said_of_commands_that_there_are() -> None:
    assert set(KEPT) < set(COMMANDS)
