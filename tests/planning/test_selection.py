"""What a command is to work on is refused where its files do not say so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.planning.preprocessing import complete_data
from nnunetv2_slicemamba.planning.selection import select

PLANS = "nnUNetSliceMambaSPlans"
CASES = [f"case_{i}" for i in range(5)]


@pytest.fixture
def folder(workspace: Path) -> Path:
    return workspace / "nnUNet_preprocessed" / "Dataset901_Disks"


def write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("fold", ["5", "-1", "x", "", "²", "٣", "1.0"])
def test_a_fold_that_is_none_of_nnunets_five_is_refused_with_the_range(fold: str, folder: Path) -> None:
    with pytest.raises(InputError, match=f"fold '{fold}' does not exist: give 'all' or a number from 0 to 4,"):
        select("901", "2d", fold, PLANS)


def test_the_splits_say_which_folds_there_are(folder: Path) -> None:
    write(folder / "splits_final.json", [{"train": CASES[:3], "val": CASES[3:]}])
    assert select("901", "2d", "0", PLANS).fold == 0
    with pytest.raises(InputError, match="give 'all' or 0, the only split that is defined"):
        select("901", "2d", "1", PLANS)
    write(folder / "splits_final.json", [])
    with pytest.raises(InputError, match=r"splits_final.json holds no fold. Restore it"):
        select("901", "2d", "0", PLANS)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_fold_without_cases_to_train_or_validate_on_is_refused(part: str, folder: Path) -> None:
    fold = {"train": CASES[:3], "val": CASES[3:]}
    write(folder / "splits_final.json", [fold, fold | {part: []}])
    assert select("901", "2d", "0", PLANS).fold == 0
    with pytest.raises(InputError, match=rf"splits_final.json has no case in '{part}' of fold 1. Name some; -f all"):
        select("901", "2d", "1", PLANS)
    assert select("901", "2d", "all", PLANS).fold == "all"


def test_a_case_of_the_split_that_nobody_has_is_named(folder: Path) -> None:
    splits = [{"train": CASES[:3], "val": CASES[3:]}, {"train": ["case_0", "case_7", "case_8"], "val": ["case_1"]}]
    write(folder / "splits_final.json", splits)
    assert select("901", "2d", "0", PLANS).fold == 0
    with pytest.raises(InputError, match=r"splits_final.json names cases in fold 1 .*: 'case_7' and 1 more. Correct"):
        select("901", "2d", "1", PLANS)


def test_plans_of_a_dataset_that_was_renamed_are_refused_with_what_to_change(folder: Path) -> None:
    """nnU-Net would read the data, and write the results, of the dataset's old name."""
    renamed = folder.rename(folder.with_name("Dataset911_Rings"))
    file = renamed / f"{PLANS}.json"
    told = re.escape(f"the dataset_name in it is '{folder.name}'") + '.*change it .*"dataset_name": "Dataset911_Rings"'
    with pytest.raises(InputError, match=told):
        select("911", "2d", "0", PLANS)
    with pytest.raises(InputError, match=told):
        complete_data(renamed.name, PLANS, "2d")
    write(file, json.loads(file.read_text()) | {"dataset_name": renamed.name})
    assert select("911", "2d", "0", PLANS).dataset == renamed.name


def changed(folder: Path, **changes: Any) -> Path:
    file = folder / f"{PLANS}.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["2d"] |= changes
    write(file, plans)
    return file


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patch_size": "large"}, "configurations.2d.patch_size is 'large', it must be a list"),
        ({"inherits_from": "3d"}, "cannot be used: the plans have no configuration '3d'"),
        ({"inherits_from": "2d"}, "cannot be used: the plans' configurations inherit in a circle"),
        ({"architecture": {}}, "in configuration '2d', architecture has no 'network_class_name' and no 'arch_kwargs'"),
        (
            {"architecture": {"network_class_name": "SliceMambaUNet", "arch_kwargs": {"strides": "4"}}},
            "in configuration '2d', architecture.arch_kwargs.strides is '4', it must be a list",
        ),
    ],
)
def test_plans_that_no_network_can_be_built_from_are_named(changes: dict[str, Any], words: str, folder: Path) -> None:
    file = changed(folder, **changes)
    with pytest.raises(InputError, match=f"{file} .*{words}.* make it again with 'slicemamba plan'"):
        select("901", "2d", "0", PLANS)


@pytest.mark.parametrize("name", [f"{PLANS}.json", "splits_final.json"])
@pytest.mark.parametrize("content", [b"", b'{"configurations": {"2d":', b"\xff", b"3"], ids=repr)
def test_a_damaged_file_is_named_with_the_remedy(content: bytes, name: str, folder: Path) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{folder / name} is (no JSON:|not) .*\. Restore it[,;]"):
        select("901", "2d", "0", PLANS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 0}, "batch_size 0 and patch_size"),
        ({"patch_size": [32, 0]}, r"patch_size \[32, 0\] in configuration '2d'; both must be at least 1"),
        ({"patch_size": [8, 32, 32]}, r"patch_size \[8, 32, 32\] .* the patch has 2 axes"),
        ({"patch_size": []}, r"patch_size \[\]"),
    ],
)
def test_a_batch_and_a_patch_that_cannot_be_are_refused(folder: Path, changes: dict[str, Any], words: str) -> None:
    changed(folder, **changes)
    with pytest.raises(InputError, match=words):
        select("901", "2d", "0", PLANS)
