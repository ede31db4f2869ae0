"""A full disk is told with the file, the room that is left and the remedy, whoever writes."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from nnunetv2_slicemamba.common import full_disk
from nnunetv2_slicemamba.common.full_disk import DiskFullError, full_disk_told
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.common.whole_file import replacing
from nnunetv2_slicemamba.datasets.part_files import write_whole


def no_room(number: int = errno.ENOSPC) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """No byte more than is written reaches the disk, which has none left."""

    def fail(descriptor: int) -> None:
        raise no_room()

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))


def test_a_file_that_does_not_fit_is_told_and_the_old_one_stays(full: None, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text("old")
    with pytest.raises(DiskFullError) as told:
        write_json(file, {"a": 1})
    assert str(told.value) == (
        f"{file} could not be written (No space left on device): after 13 bytes of it, 0 bytes are free on the disk of "
        f"{tmp_path}. Make room, and the same command goes on"
    )
    assert told.value.errno == errno.ENOSPC
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"result.json": "old"}


def test_a_converters_file_is_told_by_its_own_name(tmp_path: Path) -> None:
    def write(part: Path) -> None:
        part.write_bytes(bytes(2_500_000))
        raise no_room(errno.EDQUOT)

    with pytest.raises(DiskFullError, match=r"case.png could not .*after 2.5 MB of it.*your quota .* is used up. Make"):
        write_whole(tmp_path / "case.png", write)
    assert list(tmp_path.iterdir()) == []


def test_pytorchs_error_is_told_where_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write() -> None:
        with replacing(tmp_path / "weights.pth"):
            raise RuntimeError("enforce fail at inline_container.cc: unexpected pos 64 vs 0")

    with pytest.raises(RuntimeError, match="unexpected pos"):
        write()
    monkeypatch.setattr(full_disk.shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    with pytest.raises(DiskFullError, match=r"weights.pth could not be written .* 100 bytes are free"):
        write()


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    for error in (PermissionError(errno.EACCES, "no"), ValueError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, full_disk_told(tmp_path / "file"):
            raise error
        assert raised.value is error
