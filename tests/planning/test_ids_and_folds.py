"""Data sets and folds are what nnU-Net will find and can draw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from nnunetv2_slicemamba.common import folders
from nnunetv2_slicemamba.common.folders import FOLDERS, InputError
from nnunetv2_slicemamba.pipeline.preparing import Planning, prepare
from nnunetv2_slicemamba.planning import preprocessing
from nnunetv2_slicemamba.planning.selection import check_fold, require_dataset
from nnunetv2_slicemamba.report.dataset import find_dataset

PLANS = "nnUNetSliceMambaSPlans"


@pytest.mark.parametrize("name", ["Dataset007_A", "Dataset1001_Big", "Dataset98765_Bigger"])
def test_ids_of_any_length_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for variable in FOLDERS:
        monkeypatch.setenv(variable, str(tmp_path))
    (tmp_path / name).mkdir()
    (tmp_path / "Dataset100_Other").mkdir()
    number = str(int(name.removeprefix("Dataset").split("_")[0]))
    assert require_dataset(number, "nnUNet_raw") == require_dataset(name, "nnUNet_raw") == name
    assert (find_dataset(number).name, find_dataset(name).number) == (name, int(number))
    for text in ("\u00b2", "\u0667", "8", f"{name}x"):
        with pytest.raises(InputError, match=f"there is no dataset .*it has: Dataset|one of: .*{name}"):
            require_dataset(text, "nnUNet_raw")


def test_an_id_that_nnunet_confuses_with_another_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in FOLDERS:
        monkeypatch.setenv(variable, str(tmp_path))
    for name in ("Dataset100_A", "Dataset1001_B"):
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="More than one dataset name"):
        require_dataset("100", "nnUNet_raw")


def with_cases(folder: Path, cases: int) -> Path:
    (folder / "gt_segmentations").mkdir()
    for number in range(cases):
        (folder / "gt_segmentations" / f"case_{number}.png").touch()
    return folder


def test_a_fold_that_nnunet_cannot_draw_is_refused(tmp_path: Path) -> None:
    with_cases(tmp_path, 3)
    with pytest.raises(InputError, match=r"wants a training case for each, \S+ has 3\. Train with -f all"):
        check_fold("0", tmp_path)
    assert check_fold("all", tmp_path) == "all"
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}] * 3))
    assert check_fold("2", tmp_path) == 2


def test_five_cases_make_five_folds_and_folds_have_the_digits_0_to_9(tmp_path: Path) -> None:
    with_cases(tmp_path, 5)
    assert check_fold("4", tmp_path) == 4
    for fold in ("5", "\u00b2", "\u0662", "-1", ""):
        with pytest.raises(InputError, match="give 'all' or a number from 0 to 4"):
            check_fold(fold, tmp_path)


def test_a_run_asks_to_write_only_where_data_are_missing(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (folders, preprocessing):
        monkeypatch.setattr(module, "is_writable", lambda folder: False)
    monkeypatch.setattr(preprocessing, "preprocess", lambda *_: pytest.fail("data were written"))
    prepare("901", "2d", PLANS, Planning("S", "paper", 8.0), Console())
    next((workspace / "nnUNet_preprocessed").glob("Dataset901_*/nnUNetPlans_2d/*.pkl")).unlink()
    with pytest.raises(InputError, match="lacks preprocessed data of 2d and is not writable; change its permissions"):
        prepare("901", "2d", PLANS, Planning("S", "paper", 8.0), Console())
