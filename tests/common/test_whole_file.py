"""A reader finds the old file or the whole new one."""

import errno
import os
import stat
import subprocess
import sys

import pytest

from nnunetv2_slicemamba.common.other_processes import host, host_mark
from nnunetv2_slicemamba.common.whole_file import replacing, sweep


def test_the_file_is_replaced_at_the_end_and_not_before(tmp_path):
    file = tmp_path / "new" / "result.json"
    with replacing(file) as temporary:
        temporary.write_text("first")
        assert not file.exists()
        assert temporary.parent == file.parent  # os.replace is atomic within a file system only
        assert temporary.suffix == file.suffix
    with replacing(file) as temporary:
        temporary.write_text("second")
        assert file.read_text() == "first"
    assert file.read_text() == "second"
    assert list(file.parent.iterdir()) == [file]


def test_a_name_as_long_as_the_file_system_takes_is_written(tmp_path):
    files = [tmp_path / f"{letter}{'x' * 249}.json" for letter in "ab"]
    with replacing(files[0]) as one, replacing(files[1]) as other:
        one.write_text("a")
        other.write_text("b")
    assert [file.read_text() for file in files] == ["a", "b"]
    assert sorted(tmp_path.iterdir()) == files


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    file = tmp_path / "result.json"
    file.write_text("old")

    def fail_half_way():
        with replacing(file) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_refusal_names_the_file_and_not_the_temporary_one(tmp_path):
    file = tmp_path / "network.ts"
    with pytest.raises(PermissionError) as refused, replacing(file) as temporary:
        raise PermissionError(errno.EACCES, "Permission denied", str(temporary))
    assert refused.value.filename == str(file)
    with pytest.raises(PermissionError) as refused, replacing(file):
        raise PermissionError(errno.EACCES, "Permission denied", "another")
    assert refused.value.filename == "another"


def test_the_bytes_are_on_disk_before_the_name_changes(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append("sync"))
    replace = os.replace

    def note_and_replace(source, target):
        done.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "replace", note_and_replace)
    with replacing(tmp_path / "f") as temporary:
        temporary.write_text("x")
    assert done[:2] == ["sync", "replace"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_others_may_read_the_result_as_any_other_file(tmp_path):
    (tmp_path / "plain").write_text("")
    with replacing(tmp_path / "f") as temporary:
        temporary.write_text("x")
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_what_killed_processes_left_is_removed_and_what_others_are_writing_is_not(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with replacing(tmp_path / "mine.json") as temporary:
        temporary.write_text("x")
        assert host() not in temporary.name
        named = temporary.name.replace
        left = tmp_path / named(f"-{os.getpid()}", f"-{ended.pid}").replace("mine", "fitness")
        running = tmp_path / named(f"-{os.getpid()}", f"-{os.getppid()}")
        elsewhere, old = (tmp_path / named(host_mark(), name) for name in ("elsewhere", "long_ago"))
        users = tmp_path / ".notes.part.txt"
    for file in (left, running, elsewhere, old, users):
        file.write_text("half")
    os.utime(old, (0, 0))
    sweep(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"mine.json", running.name, elsewhere.name, users.name}


def test_writing_a_file_removes_what_a_killed_process_left_beside_it(tmp_path):
    code = (
        "import os, sys; from nnunetv2_slicemamba.common.whole_file import replacing\n"
        "with replacing(sys.argv[1]) as temporary: temporary.write_text('half'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "one.png")], check=False)
    assert [file.suffix for file in tmp_path.iterdir()] == [".png"]
    with replacing(tmp_path / "other.png") as temporary:
        temporary.write_text("x")
    assert [file.name for file in tmp_path.iterdir()] == ["other.png"]
