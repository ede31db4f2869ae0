"""What ends a command: a message for what a user did, a report to send for a bug, and never a traceback."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from nnunetv2_slicemamba.cli.errors import message_of
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.search.settings import SearchSettings
from tests.cli.commands import Ended, called


@pytest.fixture
def ended_by(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Callable[[], object]], Ended]:
    """How `slicemamba trainer-path` ends if this is called where it prints."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def run(cause: Callable[[], object]) -> Ended:
        monkeypatch.setattr("nnunetv2_slicemamba.cli.trainer_path.typer.echo", lambda text: cause())
        return called("trainer-path")

    return run


def raising(error: BaseException) -> Callable[[], NoReturn]:
    def cause() -> NoReturn:
        raise error

    return cause


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        (raising(InputError("plans '[/b]\\' do not exist")), "error: plans '[/b]\\' do not exist"),
        (lambda: SearchSettings(population=0), "error: population is 0, it must be at least 1; give 1 or more"),
        (lambda: SearchSettings(population="5"), "error: population is '5', it must be a whole number"),  # type: ignore[arg-type]
        (Path("/no/[v2]/such").read_text, "error: /no/[v2]/such: No such file or directory; check the path"),
        (
            raising(OSError(errno.ENOSPC, "No space left on device", "x.json")),
            "error: x.json: No space left on device; make room on the disk; the same command continues",
        ),
        (
            raising(OSError(errno.EIO, "Input/output error", "a", None, "b")),
            "error: a -> b: Input/output error; the disk",
        ),
        (
            raising(MemoryError("Unable to allocate 128. TiB")),
            "error: memory does not suffice (Unable to allocate 128. TiB)",
        ),
    ],
)
def test_what_is_refused_on_purpose_is_told_in_one_message(
    ended_by: Callable[..., Ended], tmp_path: Path, cause: Callable[[], object], told: str
) -> None:
    ended = ended_by(cause)
    assert ended.code == 2
    assert ended.message.startswith(told)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("cause", "name"),
    [
        (lambda: int("²"), "ValueError: invalid literal for int() with base 10: '²'"),
        (lambda: {}["[/b]"], "KeyError: '[/b]'"),
        (lambda: [][0], "IndexError: list index out of range"),
        (lambda: next(iter([])), "StopIteration"),
        (lambda: None.x, "AttributeError: "),  # type: ignore[attr-defined]
        (raising(EOFError()), "EOFError"),
        (raising(RuntimeError("from elsewhere")), "RuntimeError: from elsewhere"),
        (raising(OSError("without a number")), "OSError: without a number"),
    ],
)
def test_what_nobody_foresaw_is_called_a_bug_and_keeps_its_traceback(
    ended_by: Callable[..., Ended], tmp_path: Path, cause: Callable[[], object], name: str
) -> None:
    ended = ended_by(cause)
    assert ended.code == 1
    assert f"error: {name}" in ended.message
    assert "This is a bug in SliceMamba, not in your input. Please report it with" in ended.message
    assert "slicemamba doctor" in ended.message
    assert "Traceback" not in ended.err
    (file,) = tmp_path.iterdir()
    assert str(file) in ended.message
    assert re.fullmatch(rf"slicemamba_error_\d{{8}}T\d{{6}}_{os.getpid()}_\w+\.txt", file.name)
    text = file.read_text(encoding="utf-8")
    assert "Traceback (most recent call last)" in text
    assert "nnunetv2_slicemamba 0." in text
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("line", "message"), [("raise ValueError('twice')", "twice"), ("int('x')", None), ("assert False, 'x'", None)]
)
def test_what_the_package_raises_is_told_apart_without_its_source(line: str, message: str | None) -> None:
    """As of a package that was compiled, or replaced while the command ran."""
    place = {"__name__": "nnunetv2_slicemamba.nowhere"}
    with pytest.raises((ValueError, AssertionError)) as caught:
        exec(compile(f"if True: {line}", "/gone/nowhere.py", "exec"), place)
    assert message_of(caught.value) == message


def test_a_bug_is_told_where_no_file_can_be_written(
    ended_by: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    ended = ended_by(lambda: [][0])
    assert ended.code == 1
    assert "IndexError" in ended.err
    assert "could not be written to a file" in ended.message


def test_the_traceback_is_shown_where_it_is_asked_for(
    ended_by: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLICEMAMBA_DEBUG", "1")
    with pytest.raises(InputError, match="shown"):
        ended_by(raising(InputError("shown")))


def test_ctrl_c_ends_with_130(ended_by: Callable[..., Ended]) -> None:
    assert ended_by(raising(KeyboardInterrupt())).code == 130


@pytest.mark.parametrize("arguments", [("plan", "-d", ""), ("slicing", "--set", "", "-d", "1"), ("report", "")])
def test_an_empty_value_is_refused(arguments: tuple[str, ...]) -> None:
    ended = called(*arguments)
    assert ended.code == 2
    assert "empty" in ended.message
    assert "is a shell variable unset?" in ended.message


@pytest.mark.parametrize("value", ["abc", "", "-1", "2.5", "\N{SUPERSCRIPT TWO}"])
@pytest.mark.parametrize("variable", ["nnUNet_def_n_proc", "nnUNet_n_proc_DA"])
def test_a_variable_of_nnunets_that_holds_no_number_is_named_at_once(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    ended = called("status")
    assert ended.code == 2
    assert ended.message.startswith(f"error: {variable}={value} is no whole number from")
    assert called("trainer-path").code == 0


@pytest.mark.parametrize("columns", ["0", "000", "-5", "x", "\N{SUPERSCRIPT TWO}", "9" * 30])
def test_a_terminal_of_no_width_hides_no_message(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.delenv("nnUNet_results", raising=False)
    assert called("status", "-d", "1").message.startswith("error: nnUNet_results is not set")


def test_a_name_that_is_no_text_is_shown(tmp_path: Path) -> None:
    """Names of files are bytes; a locale's encoding may have none of their letters."""
    raw = os.fsencode(tmp_path) + b"/\xff \xe4\xba\xac"
    done = subprocess.run(
        [sys.executable, "-m", "nnunetv2_slicemamba", "convert", "kvasir", raw, "-d", "3"],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "nnUNet_raw": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert rb"\udcff \u4eac is not a folder" in done.stderr


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    call = [sys.executable, "-m", "nnunetv2_slicemamba", *arguments]
    return subprocess.run(call, env={**os.environ, "PYTHONPATH": path}, text=True, check=False, **options)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("asked", ["--help", "trainer-path"])
def test_output_that_cannot_be_written_is_no_traceback(
    asked: str, buffered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "" if buffered else "1")
    with open("/dev/full", "w") as full:
        done = command(asked, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "error: No space left on device; make room on the disk" in done.stderr


@pytest.mark.parametrize("buffered", [True, False])
def test_output_that_nobody_reads_ends_the_command_in_silence(buffered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "" if buffered else "1")
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as nobody:
        done = command("trainer-path", stdout=nobody, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has another shell")
@pytest.mark.parametrize(("arguments", "code", "said"), [("trainer-path", 0, 0), ("evaluate a b", 2, 1)])
def test_a_command_works_where_the_output_is_closed(arguments: str, code: int, said: int) -> None:
    call = f"exec {sys.executable} -m nnunetv2_slicemamba {arguments} >&-"
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(["sh", "-c", call], env=environment, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("error: ")) == (code, said), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a folder that somebody works in")
def test_a_working_folder_that_was_removed_is_named_before_any_library_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    removes = f"cd {tmp_path}/gone && rmdir {tmp_path}/gone && exec {sys.executable} -c "
    code = "from nnunetv2_slicemamba.cli.main import main; main(['evaluate', 'a', 'b'])"
    path = str(Path(__file__).parents[2])
    done = subprocess.run(
        ["sh", "-c", f'{removes} "{code}"'],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "the working folder has been removed" in done.stderr
