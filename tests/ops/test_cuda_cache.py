"""Compiled kernels are taken from files that nobody else could have written, and that are as they were written."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnunetv2_slicemamba.ops.cuda import cache

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="permissions of POSIX")
as_root = pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give files away")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that the user chose; temporary files are elsewhere."""
    chosen = tmp_path / "chosen"
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(chosen))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cache._private.cache_clear()
    yield chosen
    cache._private.cache_clear()


def test_what_was_written_is_read_and_nothing_else(folder: Path) -> None:
    assert cache.read("a.cubin") is None
    cache.write("a.cubin", b"code")
    cache.write("b.cubin", b"other")
    assert (cache.read("a.cubin"), cache.read("b.cubin")) == (b"code", b"other")
    assert sorted(file.name for file in folder.iterdir()) == ["a.cubin", "b.cubin"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "another's", "of an earlier version", "link"])
def test_a_file_that_is_not_as_it_was_written_is_none(folder: Path, damage: str) -> None:
    cache.write("a.cubin", b"machine code")
    cache.write("b.cubin", b"other code")
    file = folder / "a.cubin"
    content = file.read_bytes()
    if damage == "link":
        file.rename(folder / "real")
        file.symlink_to(folder / "real")
    else:
        file.write_bytes(
            {
                "empty": b"",
                "cut": content[:-1],
                "flipped": content[:-1] + b"E",
                "another's": (folder / "b.cubin").read_bytes(),
                "of an earlier version": b"machine code",
            }[damage]
        )
    assert cache.read("a.cubin") is None
    if damage != "link":
        cache.write("a.cubin", b"machine code")
        assert cache.read("a.cubin") == b"machine code"


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_a_folder_that_others_can_write_is_not_used(folder: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    cache.write("a.cubin", b"planted")
    folder.chmod(mode)
    cache._private.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert cache.read("a.cubin") is None
    assert f"other users can write to {folder}. Set SLICEMAMBA_CACHE to a folder of your own" in caplog.text
    cache.write("a.cubin", b"code")
    assert cache.read("a.cubin") == b"code"
    used = cache.cache_folder()
    assert used != folder
    assert stat.S_IMODE(used.stat().st_mode) == 0o700
    assert len(caplog.records) == 1, "it is said once"


def test_a_file_that_others_can_write_is_not_used(folder: Path) -> None:
    cache.write("a.cubin", b"code")
    (folder / "a.cubin").chmod(0o666)
    assert cache.read("a.cubin") is None


@as_root
@pytest.mark.parametrize("what", ["file", "folder"])
def test_another_users_file_or_folder_is_not_used(folder: Path, what: str) -> None:
    cache.write("a.cubin", b"planted")
    os.chown(folder / "a.cubin" if what == "file" else folder, 65534, 65534)
    cache._private.cache_clear()
    assert cache.read("a.cubin") is None
    cache.write("a.cubin", b"code")
    assert cache.read("a.cubin") == b"code"


def test_a_temporary_folder_that_another_user_prepared_is_not_used(folder: Path) -> None:
    prepared = Path(tempfile.gettempdir()) / f"slicemamba-{os.getuid()}"
    prepared.mkdir()
    prepared.chmod(0o777)
    folder.mkdir()
    folder.chmod(0o777)
    assert cache.cache_folder() not in (prepared, folder)
    cache.write("a.cubin", b"code")
    assert cache.read("a.cubin") == b"code"
    shutil.rmtree(prepared)


def test_the_default_folder_of_an_earlier_version_is_closed_to_the_group(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(cache.CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "slicemamba").mkdir()
    (tmp_path / "slicemamba").chmod(0o775)
    assert cache.cache_folder() == tmp_path / "slicemamba"
    assert stat.S_IMODE((tmp_path / "slicemamba").stat().st_mode) == 0o755


@pytest.mark.parametrize("value", [None, "~/kernels"])
def test_without_a_home_folder_kernels_are_kept_among_the_temporary_files(
    folder: Path, value: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (cache.CACHE_VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv(cache.CACHE_VARIABLE, value)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where neither HOME nor a user's entry is
    cache.write("a.cubin", b"code")
    assert cache.read("a.cubin") == b"code"
    assert cache.cache_folder().parent == Path(tempfile.gettempdir())
    assert "there is no home folder for ~" in caplog.text
