"""nnU-Net's variables mean folders that are there; a value that went wrong makes none."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetv2_slicemamba.common.folders import InputError, named_folder, require_apart, require_folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("~/raw", "begins with ~, which only a shell replaces, and not inside quotes; write the whole path: "),
        ("~somebody/raw", "begins with ~"),
        ('"raw"', "has quotes in its value; remove them: raw"),
        ("'/data/raw", "has quotes in its value; remove them: /data/raw"),
        ("raw", "is not there, seen from"),
        ("a/b/raw", "is not there, seen from"),
        ("/nowhere/at/all/raw", "cannot be made, as /nowhere/at/all is not a folder; correct the path"),
    ],
)
def test_a_value_that_went_wrong_is_refused_and_nothing_made(
    here: Path, monkeypatch: pytest.MonkeyPatch, value: str, told: str
) -> None:
    monkeypatch.setenv("nnUNet_raw", value)
    with pytest.raises(InputError) as refused:
        require_folder("nnUNet_raw", writable=True)
    assert f"nnUNet_raw={value} {told}" in str(refused.value)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("value", ["~/raw", "'raw'"])
def test_such_a_value_is_refused_even_where_an_earlier_slip_made_the_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    (here / value).mkdir(parents=True)
    monkeypatch.setenv("nnUNet_raw", value)
    with pytest.raises(InputError, match="nnUNet_raw="):
        named_folder("nnUNet_raw")


def test_the_last_folder_is_made_and_only_where_something_will_be_written(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(here / "raw"))
    with pytest.raises(InputError, match="is not a folder; make it"):
        require_folder("nnUNet_raw")
    assert require_folder("nnUNet_raw", writable=True).is_dir()


def test_relative_folders_that_are_there_and_apostrophes_inside_are_taken(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("raw", "Anna's raw"):
        (here / value).mkdir()
        monkeypatch.setenv("nnUNet_raw", value)
        assert require_folder("nnUNet_raw", writable=True) == Path(value)
    monkeypatch.delenv("nnUNet_raw")
    assert named_folder("nnUNet_raw") is None


def test_two_variables_that_name_one_folder_are_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("raw", "preprocessed"):
        (here / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(here / name))
    require_apart("nnUNet_raw", "nnUNet_preprocessed")
    (here / "link").symlink_to(here / "raw")
    monkeypatch.setenv("nnUNet_preprocessed", str(here / "link"))
    with pytest.raises(InputError, match="are one folder.*give nnUNet_preprocessed a folder of its own"):
        require_apart("nnUNet_raw", "nnUNet_preprocessed")
