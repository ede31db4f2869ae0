"""A reader finds the old file or the whole new one."""

import os
import stat

import pytest

from nnunetv2_slicemamba.common.whole_file import replacing


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
