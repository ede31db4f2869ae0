"""One folder, one training: the lock says who has it, ends with its process, and leaves nothing behind."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nnunetv2_slicemamba.common.folder_lock import LOCK_FILE, FolderInUseError, in_use, require_unused

# with a forked process that outlives it, as loaders of batches may
HOLDER = """
import os, sys, time
from pathlib import Path
from nnunetv2_slicemamba.common.folder_lock import in_use
with in_use(Path(sys.argv[1]), shared=len(sys.argv) > 2):
    if os.fork() == 0:
        os.close(1)
        time.sleep(5)
        os._exit(0)
    print("has it", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """hold(): a process that has the lock of tmp_path."""
    started = []

    def start(*more: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path), *more], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "has it\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_process_is_refused_and_told_who_has_the_folder_until_that_one_is_killed(
    hold: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    holder = hold()
    for take in (lambda: in_use(tmp_path), lambda: in_use(tmp_path, shared=True)):
        with pytest.raises(FolderInUseError) as refused, take():
            pass
        assert f"in use by process {holder.pid} on " in str(refused.value)
        assert f"{tmp_path})" in str(refused.value)  # its command
    with pytest.raises(FolderInUseError):
        require_unused(tmp_path)
    holder.kill()
    holder.wait()
    require_unused(tmp_path)
    with in_use(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_searches_share_a_folder_and_keep_a_training_out_until_the_last_has_ended(
    hold: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    one = hold("shared")
    with in_use(tmp_path, shared=True):
        pass
    # the one that ended first has not taken the other's lock along
    with pytest.raises(FolderInUseError), in_use(tmp_path):
        pass
    one.kill()
    one.wait()
    with in_use(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["exclusive", "shared"])
def test_who_may_only_read_a_folder_learns_who_has_it(
    kind: str, hold: Callable[..., subprocess.Popen[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another user who asks for the state of a run, or on a disk that was mounted for reading."""
    holder = hold(*(["shared"] if kind == "shared" else []))
    opened = os.open

    def read_only(path: Path, flags: int, *more: int) -> int:
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, flags, *more)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(FolderInUseError, match=f"in use by process {holder.pid} on "):
        require_unused(tmp_path)
    holder.kill()
    holder.wait()
    require_unused(tmp_path)
    assert (tmp_path / LOCK_FILE).is_file()


def test_one_process_does_not_take_a_folder_twice(tmp_path: Path) -> None:
    with in_use(tmp_path):
        with pytest.raises(FolderInUseError, match="by this process already"), in_use(tmp_path):
            pass
        assert (tmp_path / LOCK_FILE).is_file()


@pytest.mark.parametrize(
    ("host", "process", "refused"),
    [(None, os.getppid(), True), (None, 2**22 + 1, False), ("elsewhere", 1, True)],
)
def test_where_the_file_system_keeps_no_locks_the_file_counts(
    host: str | None, process: int, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with in_use(tmp_path):
        content = json.loads((tmp_path / LOCK_FILE).read_text())
    content |= {"process": process} | ({} if host is None else {"host": host})
    monkeypatch.setattr(fcntl, "lockf", no_locks)
    (tmp_path / LOCK_FILE).write_text(json.dumps(content))
    if refused:
        with pytest.raises(FolderInUseError, match=f"process {process} on .* delete {tmp_path}/{LOCK_FILE}"):
            require_unused(tmp_path)
        assert (tmp_path / LOCK_FILE).is_file()
    else:
        require_unused(tmp_path)
        with in_use(tmp_path):
            pass
        assert list(tmp_path.iterdir()) == []
