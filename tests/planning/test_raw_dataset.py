"""A dataset.json that does not fit is refused before nnU-Net starts, with the value, the rule and the remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.planning import preprocessing
from nnunetv2_slicemamba.planning.data import raw_cases
from nnunetv2_slicemamba.planning.preprocessing import plan_and_preprocess
from nnunetv2_slicemamba.planning.raw_dataset import check_raw_dataset, check_splits
from tests.conftest import write_raw_dataset

DISKS = "Dataset901_Disks"
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Raw data of five images, found by their names."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "nnUNet_preprocessed"))
    write_raw_dataset(tmp_path, "2d")
    edit(tmp_path / DISKS, lambda content: content.pop("dataset"))
    return tmp_path / DISKS


def edit(folder: Path, change: Change) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    change(content)
    (folder / "dataset.json").write_text(json.dumps(content))


def test_what_fits_is_accepted_listed_or_not(folder: Path) -> None:
    check_raw_dataset(folder, counted=True)
    assert raw_cases(DISKS) == {f"case_{i}" for i in range(5)}
    entry = {"images": ["imagesTr/case_0_0000.png"], "label": "labelsTr/case_0.png"}
    edit(folder, lambda content: content.update(dataset={"only": entry}, numTraining=1))
    check_raw_dataset(folder, counted=True)
    assert raw_cases(DISKS) == {"only"}


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        ({"background": 0, "ball": 1, "ignore": 2}, None),
        ({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2]),
        ({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, [1, 2]),
    ],
)
def test_regions_and_an_ignore_label_are_accepted(
    folder: Path, labels: dict[str, Any], order: list[int] | None
) -> None:
    edit(folder, lambda content: content.update(labels=labels, **({"regions_class_order": order} if order else {})))
    check_raw_dataset(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda c: c.update(file_ending=".nii.gz"),
            "says file_ending '.nii.gz', but {}/imagesTr holds: 5 .png; correct",
        ),
        (lambda c: c.update(file_ending="png"), "has the file_ending 'png'; give one with its dot"),
        (lambda c: c.pop("file_ending"), "file_ending"),
        (lambda c: c.pop("labels"), "labels"),
        (lambda c: c.update(labels={"0": "background", "1": "ball"}), "labels"),
        (lambda c: c.update(labels=["background", "ball"]), "labels"),
        (lambda c: c["labels"].update(ball=-1), "give an object of names with whole numbers"),
        (lambda c: c["labels"].update(ball=2), "has the labels 0, 2; nnU-Net wants 0, 1, 2 and so on without a gap"),
        (lambda c: c.pop("channel_names"), "has the channel_names None; give an object with a name per channel"),
        (lambda c: c.update(channel_names={"1": "grey"}), "has the channel_names {'1': 'grey'}; give an object"),
        (
            lambda c: c.update(channel_names={"0": "R", "1": "G"}),
            "have 1 channels, {}/dataset.json names 2: case_0, case_1",
        ),
        (lambda c: c.update(numTraining=4), "says numTraining 4, there are 5 training cases; correct it"),
        (lambda c: c.update(dataset={}), "has an entry 'dataset' that nnU-Net does not understand"),
        (lambda c: c.update(dataset={"a": {"images": ["a.png"]}}), "dataset.a has no 'label'"),
        (
            lambda c: c.update(dataset={"a": {"images": ["a.png"], "label": "labelsTr/case_0.png"}}),
            "are not there: {}/a.png",
        ),
        (lambda c: c.update(dataset={"a": {"images": ["a.png"], "label": "b.png"}}), "have no labels: {}/b.png"),
    ],
)
def test_what_does_not_fit_is_refused_before_nnunet_starts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: Change, told: str
) -> None:
    monkeypatch.setattr(preprocessing, "extract_fingerprint_dataset", lambda *_, **__: pytest.fail("nnU-Net started"))
    edit(folder, change)
    with pytest.raises(InputError, match=re.escape(told.replace("{}", str(folder)))):
        plan_and_preprocess(901, DISKS, "S", verify=True)


def test_images_with_another_number_of_channels_are_named(folder: Path) -> None:
    edit(folder, lambda content: content.update(channel_names={"0": "R", "1": "G", "2": "B"}))
    for i in range(5):
        Image.new("RGB" if i < 3 else "RGBA", (40, 32)).save(folder / "imagesTr" / f"case_{i}_0000.png")
    with pytest.raises(InputError, match="2 of 5 training cases have 4 channels, .* names 3: case_3, case_4; name"):
        check_raw_dataset(folder)


def test_cases_with_fewer_files_than_others_are_named(folder: Path) -> None:
    edit(folder, lambda content: content.update(channel_names={"0": "first", "1": "second"}))
    for i in range(4):
        image = np.asarray(Image.open(folder / "imagesTr" / f"case_{i}_0000.png"))
        Image.fromarray(image).save(folder / "imagesTr" / f"case_{i}_0001.png")
    with pytest.raises(InputError, match="1 of 5 training cases have 1 channels, .* names 2: case_4;"):
        check_raw_dataset(folder)


def test_files_that_are_missing_or_misnamed_are_named(folder: Path) -> None:
    (folder / "labelsTr" / "case_3.png").unlink()
    with pytest.raises(InputError, match=r"1 of 5 training cases have no labels: \S+labelsTr/case_3\.png; add them"):
        check_raw_dataset(folder)
    (folder / "imagesTr" / "case_3_0000.png").rename(folder / "imagesTr" / "case_3.png")
    with pytest.raises(InputError, match=r"case_3\.png has no number of its channel; nnU-Net expects CASE_0000\.png"):
        check_raw_dataset(folder)
    (folder / "imagesTr" / "case_3.png").write_bytes(b"no image")
    (folder / "imagesTr" / "case_3.png").rename(folder / "imagesTr" / "case_0_0000.png")
    with pytest.raises(InputError, match=r"case_0_0000\.png cannot be read by nnU-Net's NaturalImage2DIO"):
        check_raw_dataset(folder)
    (folder / "dataset.json").unlink()
    with pytest.raises(InputError, match=r"has no dataset.json, which names channels, labels and file ending"):
        check_raw_dataset(folder)


def test_label_values_that_dataset_json_does_not_name_are_refused(folder: Path) -> None:
    """The usual masks of 0 and 255, for one."""
    file = folder / "labelsTr" / "case_0.png"
    Image.fromarray(np.asarray(Image.open(file)) * np.uint8(255)).save(file)
    with pytest.raises(InputError, match=rf"{file} has the value 255, \S+dataset\.json names the labels 0, 1: correct"):
        check_raw_dataset(folder)


def test_label_files_are_read_up_to_the_first_with_a_label(folder: Path) -> None:
    for i in range(5):
        check_raw_dataset(folder)
        Image.fromarray(np.zeros((32, 40), np.uint8)).save(folder / "labelsTr" / f"case_{i}.png")
    with pytest.raises(InputError, match=r"none of the 5 label files of \S+labelsTr has a value above 0"):
        check_raw_dataset(folder)
    (folder / "labelsTr" / "case_2.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"case_2\.png cannot be read by nnU-Net's NaturalImage2DIO"):
        check_raw_dataset(folder)


def test_an_image_whose_link_leads_nowhere_is_named_and_not_left_out(folder: Path) -> None:
    image = folder / "imagesTr" / "case_3_0000.png"
    image.unlink()
    image.symlink_to(folder / "nowhere.png")
    with pytest.raises(InputError, match=rf"1 training images are not there: {image}; correct their paths or links"):
        check_raw_dataset(folder)


def test_a_byte_order_mark_that_nnunet_cannot_read_is_refused(folder: Path) -> None:
    text = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(text, encoding="utf-8-sig")
    with pytest.raises(InputError, match=r"dataset\.json begins with a byte order mark, .* save it without one"):
        check_raw_dataset(folder)


def test_two_divisions_of_one_dataset_are_refused_and_more_folds_are_not(tmp_path: Path) -> None:
    """nnU-Net asserts it, without a word, when the fingerprint is made."""
    folds = [{"train": ["a", "b"], "val": ["c"]}, {"train": ["c", "b"], "val": ["a"]}]
    raw, used = tmp_path / "raw", tmp_path / "preprocessed"
    for folder in (raw, used):
        folder.mkdir()
    check_splits(raw, used)
    (raw / "splits_final.json").write_text(json.dumps(folds[:1]))
    check_splits(raw, used)
    turned = {part: names[::-1] for part, names in folds[0].items()}
    (used / "splits_final.json").write_text(json.dumps([turned, folds[1]]))
    check_splits(raw, used)
    for other in (folds[1:], []):
        (used / "splits_final.json").write_text(json.dumps(other))
        with pytest.raises(InputError, match="differ in fold 0.*copy the one that you mean over the other"):
            check_splits(raw, used)
