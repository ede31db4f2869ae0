"""IDs and names of datasets mean what they mean to nnU-Net."""

from __future__ import annotations

from pathlib import Path

import pytest
from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name

from nnunetv2_slicemamba.common.dataset_names import (
    dataset_folder_name,
    dataset_id_of,
    datasets_in,
    named_by,
    sharing_id,
)
from nnunetv2_slicemamba.common.folders import FOLDERS, InputError
from nnunetv2_slicemamba.common.names import is_number


@pytest.mark.parametrize("number", [1, 42, 999, 1000, 1001, 98765])
def test_nnunet_finds_the_folder_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    for variable in FOLDERS:
        monkeypatch.setenv(variable, str(tmp_path))
    name = dataset_folder_name(number, "A_b")
    (tmp_path / name).mkdir()
    assert convert_id_to_dataset_name(number) == name
    assert (dataset_id_of(name), datasets_in(tmp_path)) == (number, [name])
    assert named_by(str(number), [name, "Dataset007_Other"]) == [name]


@pytest.mark.parametrize(
    "name", ["Dataset01_A", "Dataset0012_A", "Dataset001", "Dataset\u0660\u0660\u0661_A", "dataset001_A", "A"]
)
def test_other_folders_are_no_datasets(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert datasets_in(tmp_path) == []
    with pytest.raises(InputError, match=r"is not the name of a dataset; nnU-Net's are DatasetXXX_NAME"):
        dataset_id_of(name)


def test_ids_that_nnunet_confuses_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["Dataset100_A", "Dataset1001_B", "Dataset200_C"]
    assert sharing_id(100, names) == sharing_id(1001, names) == names[:2]
    assert named_by("100", names) == names[:1]
    for name in names:
        (tmp_path / name).mkdir()
    for variable in FOLDERS:
        monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(RuntimeError, match="More than one dataset name"):
        convert_id_to_dataset_name(100)


@pytest.mark.parametrize(("text", "expected"), [("0", True), ("12", True), ("²", False), ("٣", False), ("", False)])
def test_numbers_have_the_digits_0_to_9(text: str, expected: bool) -> None:
    assert is_number(text) is expected
