"""--quiet leaves results and errors, --verbose adds warnings of libraries and tracebacks; warnings are one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

import pytest

from nnunetv2_slicemamba.common.commands import CommandError, run_command
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.verbosity import QUIET, VARIABLE, SliceMambaWarning, set_verbosity
from tests.cli.commands import called


def printed_by(code: str, level: str = "") -> list[str]:
    """Lines on standard error of a process that warns of something with its warnings shown as lines."""
    start = "import warnings\nfrom nnunetv2_slicemamba.common.verbosity import *\nshow_warnings_as_lines()\n"
    environment = {**os.environ, VARIABLE: level}
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, env=environment)
    return done.stderr.splitlines()


def test_a_warning_is_one_line_without_a_line_of_code() -> None:
    text = "a warning\\nof more words than a terminal is wide " * 3
    (line,) = printed_by(f"warnings.warn({text!r}, SliceMambaWarning)".replace("\\\\", "\\"))
    assert line.startswith("warning: a warning of more words")


def test_warnings_of_libraries_are_shown_where_more_is_wanted() -> None:
    code = "warnings.warn('of a library')"
    assert printed_by(code) == []
    assert "UserWarning: of a library" in printed_by(code, "verbose")[0]


def test_quiet_leaves_the_result(workspace: Path) -> None:
    loud = called("plan", "-d", "901", "-c", "2d", "--size", "S", "--network", "paper", "-np", "1")
    assert loud.code == 0
    assert "2D U-Net configuration" in loud.out, "nnU-Net's output"
    quiet = called("plan", "-d", "901", "-c", "2d", "--size", "S", "--network", "paper", "-np", "1", "-q")
    assert quiet.out.splitlines() == ["Plans nnUNetSliceMambaSPlans of Dataset901_Disks are ready."]
    assert quiet.err == ""


def test_quiet_shows_a_command_only_if_it_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with mock.patch.dict(os.environ):
        set_verbosity(QUIET)
        run_command("slicemamba", ["--version"], PlainConsole())
        assert capfd.readouterr().out == ""
        with pytest.raises(CommandError):
            run_command("slicemamba", ["evaluate", "no", "folders"], PlainConsole())
    assert "error: " in capfd.readouterr().out


def test_verbose_names_a_file_with_the_traceback_of_an_error() -> None:
    assert "Traceback" not in called("report", "-d", "77").err
    (file,) = re.findall(r"^Traceback: (.+)$", called("report", "-d", "77", "--verbose").err, re.MULTILINE)
    assert "Traceback (most recent call last)" in Path(file).read_text()
    Path(file).unlink()


def test_quiet_and_verbose_exclude_each_other() -> None:
    ended = called("-q", "report", "-d", "77", "-v")
    assert ended.code == 2
    assert "-q and -v exclude each other" in ended.message


def test_warnings_can_still_be_caught() -> None:
    called("--version")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("caught", SliceMambaWarning)
    assert [str(one.message) for one in caught] == ["caught"]
