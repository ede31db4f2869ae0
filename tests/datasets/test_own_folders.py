"""One's own folders: a file per channel, test images, a drawn test set, for pictures and for volumes alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nnunetv2_slicemamba.datasets.request import Request
from nnunetv2_slicemamba.datasets.splits import SplitChoice, drawn_split, parse_split
from tests.datasets.dataset_sources import cases_in, disk, folds_in, run, write_pair
from tests.datasets.volume_sources import box, read, write_array


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def write_image(kind: str, path: Path, name: str) -> None:
    """A grey image, a function of the name alone."""
    if kind == "3d":
        write_array(box(name)[0], path.with_name(f"{path.name}.nii.gz"))
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(disk(name)[0][..., 0]).save(path.with_name(f"{path.name}.png"))


def write_mask(kind: str, path: Path) -> None:
    if kind == "3d":
        write_array(box(path.name)[1], path.with_name(f"{path.name}.nii.gz"))
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(disk(path.name)[1].astype(np.uint8) * 255).save(path.with_name(f"{path.name}.png"))


def images_in(folder: Path, subset: str) -> set[str]:
    return {path.name.split(".")[0] for path in (folder / f"images{subset}").iterdir()}


@pytest.mark.parametrize("kind", ["2d", "3d"])
@pytest.mark.parametrize("way", ["numbers", "folders"])
def test_channels_are_told_by_nnunets_numbers_or_lie_in_a_folder_each(
    tmp_path: Path, raw: Path, kind: str, way: str
) -> None:
    places = {
        "numbers": {"T1": "images/{}_0000", "T2": "images/{}_0001"},
        "folders": {"T1": "t1/{}", "T2": "t2/{}"},
    }[way]
    for case in "ab":
        for channel, place in places.items():
            write_image(kind, tmp_path / place.format(case), f"{case}{channel}")
            write_image(kind, tmp_path / f"test_{place.format(f'{case}2')}", f"{case}2{channel}")
        write_mask(kind, tmp_path / "masks" / case)
    folders = list(dict.fromkeys(place.partition("/")[0] for place in places.values()))
    done = run(
        "folders",
        tmp_path,
        raw,
        sources=tuple(tmp_path / name for name in (*folders, "masks")),
        test_images=tuple(tmp_path / f"test_{name}" for name in folders),
        channels=("T1", "T2"),
    )
    assert json.loads((done.folder / "dataset.json").read_text())["channel_names"] == {"0": "T1", "1": "T2"}
    assert images_in(done.folder, "Tr") == {"a_0000", "a_0001", "b_0000", "b_0001"}
    assert images_in(done.folder, "Ts") == {"a2_0000", "a2_0001", "b2_0000", "b2_0001"}
    assert not (done.folder / "labelsTs").exists()
    if kind == "3d":
        assert np.array_equal(read(done.folder / "imagesTr" / "b_0001.nii.gz")[0], box("bT2")[0])
    else:
        assert np.array_equal(np.asarray(Image.open(done.folder / "imagesTr" / "b_0001.png")), disk("bT2")[0][..., 0])
    with pytest.raises(ValueError, match=r"--channels CT names 1 channel; the images have 2"):
        run("folders", tmp_path, raw / "..", sources=tuple(tmp_path / n for n in (*folders, "masks")), channels=("CT",))


def test_cases_that_lack_a_channel_are_named(tmp_path: Path, raw: Path) -> None:
    for case, numbers in {"a": (0, 1), "b": (0, 1), "c": (0,), "d": (1, 2)}.items():
        for number in numbers:
            write_image("2d", tmp_path / "images" / f"{case}_{number:04d}", f"{case}{number}")
        write_mask("2d", tmp_path / "masks" / case)
    with pytest.raises(ValueError, match="2 problems found") as refused:
        run("folders", tmp_path, raw, sources=(tmp_path / "images", tmp_path / "masks"))
    assert "c_0000.png has 1; most cases have 2" in str(refused.value)
    assert "d has _0001, _0002; expected _0000, _0001 and so on" in str(refused.value)
    write_image("2d", tmp_path / "t1" / "a", "a")
    write_image("2d", tmp_path / "t2" / "b", "b")
    with pytest.raises(ValueError, match=r"channel missing \(2\)") as refused:
        run("folders", tmp_path, raw, sources=(tmp_path / "t1", tmp_path / "t2", tmp_path / "masks"))
    assert f"a has 0 files in {tmp_path / 't2'}; expected one per folder" in str(refused.value)


@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_test_images_are_held_out_with_their_masks(tmp_path: Path, raw: Path, kind: str) -> None:
    for folder, cases in {"": "abc", "test_": "xy"}.items():
        for case in cases:
            write_image(kind, tmp_path / f"{folder}images" / case, case)
            write_mask(kind, tmp_path / f"{folder}masks" / case)
    folders = {"sources": (tmp_path / "images", tmp_path / "masks"), "test_images": (tmp_path / "test_images",)}
    done = run("folders", tmp_path, raw, "random:0", **folders, test_masks=tmp_path / "test_masks")
    ending = {"2d": ".png", "3d": ".nii.gz"}[kind]
    assert (cases_in(done.folder, "Tr", ending), cases_in(done.folder, "Ts", ending)) == ({*"abc"}, {*"xy"})
    assert {case for fold in folds_in(done.folder) for case in fold["val"]} == {*"abc"}
    # a test image that also trains is told
    write_image(kind, tmp_path / "test_images" / "z", "a")
    write_mask(kind, tmp_path / "test_masks" / "z")
    (tmp_path / "second").mkdir()
    notes = run(
        "folders", tmp_path, tmp_path / "second", **folders, test_masks=tmp_path / "test_masks"
    ).conversion.notes
    assert any("1 of them in different parts" in note for note in notes)


def test_a_drawn_test_set_is_the_seeds_and_leaves_folds_of_the_others(tmp_path: Path, raw: Path) -> None:
    for number in range(10):
        write_pair(tmp_path / "images", tmp_path / "masks", f"c{number}")
    done = run("folders", tmp_path, raw, "holdout:0.2:7", sources=(tmp_path / "images", tmp_path / "masks"))
    test, train = cases_in(done.folder, "Ts"), cases_in(done.folder, "Tr")
    assert (len(test), len(train)) == (2, 8)
    assert {case for fold in folds_in(done.folder) for case in fold["val"]} == train
    assert json.loads((done.folder / "dataset.json").read_text())["split"] == "holdout:0.2:7"
    cases = sorted(test | train)
    assert drawn_split(parse_split("holdout:0.2:7"), cases[::-1], frozenset()).test == test
    assert drawn_split(parse_split("holdout:0.2:8"), cases, frozenset()).test != test
    with pytest.raises(ValueError, match="would hold out 2 of 2 cases, and none would train"):
        drawn_split(parse_split("holdout:0.9"), "ab", frozenset())
    with pytest.raises(ValueError, match="draws a test set, and the source has one of 1 case"):
        drawn_split(parse_split("holdout:0.5"), "ab", frozenset("c"))


@pytest.mark.parametrize("text", ["holdout", "holdout:0", "holdout:0.0:1", "holdout:1", "holdout:1.5", "holdout:20"])
def test_shares_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"holdout:SHARE:SEED \(e.g. holdout:0.2:1\)"):
        parse_split(text)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"test_masks": Path()}, "--test-masks is for --test-images DIR, which is missing"),
        ({"test_images": (Path(), Path())}, "--test-images names 2 folders and --images 1; give one per channel"),
        ({"test_images": (Path("nowhere"),)}, "the source nowhere is not a folder"),
        ({"test_images": (Path(),), "split": "holdout:0.2"}, "draws a test set, and --test-images is one"),
        ({"channels": ("a", "a")}, "--channels a,a: names must differ"),
    ],
)
def test_what_does_not_fit_together_is_refused(raw: Path, options: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        run("folders", Path(), raw, sources=(Path(), Path()), **options)


def test_the_pages_python_example_converts(tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "commands" / "convert.md").read_text(encoding="utf-8")
    example = page.partition("```python\n")[2].partition("```")[0]
    for case in "abcdef":
        for channel in ("t1", "t2"):
            write_image("3d", tmp_path / channel / case, f"{case}{channel}")
        write_mask("3d", tmp_path / "masks" / case)
    (tmp_path / "preprocessed").mkdir()
    monkeypatch.chdir(tmp_path)
    variables: dict[str, Any] = {}
    exec(example.replace("/data/nnUNet_", ""), variables)
    assert variables["done"].written == 6
    assert len(images_in(tmp_path / "raw" / "Dataset501_Liver", "Ts")) == 2


def test_a_conversion_that_an_earlier_version_began_is_continued() -> None:
    # what is not asked for is not written into the manifest, with which the request is compared
    request = Request("folders", (Path("i"), Path("m")), 7, SplitChoice("random", 1))
    assert set(request.as_json()) == {
        *("key", "sources", "dataset_id", "split", "name", "resize", "train", "organs", "labels")
    }
    assert request.as_json()["split"] == {"kind": "random", "seed": 1}
