"""Converted images are nnU-Net datasets with the split, sizes and provenance that were asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from PIL import Image

from nnunetv2_slicemamba.datasets.converters import clinicdb, kvasir
from tests.datasets.dataset_sources import (
    SHARED_DATA,
    cases_in,
    disk,
    folds_in,
    run,
    write_isic2017,
    write_joint,
    write_pair,
    write_parts,
)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_official_archives_keep_validation_as_fold_0_and_hold_the_test_set_out(tmp_path: Path, raw: Path) -> None:
    write_isic2017(tmp_path / "src", {"train": range(6), "val": (10, 11), "test": (20,)}, ".png")
    done = run("isic2017", tmp_path / "src", raw)
    folder = raw / "Dataset700_ISIC2017"
    assert done.folder == folder
    assert cases_in(folder, "Ts") == {"ISIC_0000020"}
    assert len(cases_in(folder, "Tr")) == 8
    assert folds_in(folder) == [{"train": [f"ISIC_{i:07d}" for i in range(6)], "val": ["ISIC_0000010", "ISIC_0000011"]}]
    image, mask = disk("ISIC_0000003")
    assert np.array_equal(pixels(folder / "imagesTr" / "ISIC_0000003_0000.png"), image)
    assert np.array_equal(pixels(folder / "labelsTr" / "ISIC_0000003.png"), mask)
    assert any("train: 6 images, the complete source has 2000" in note for note in done.conversion.notes)


def test_nnunet_accepts_the_dataset(tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_isic2017(tmp_path / "src", {"train": range(5), "val": (10,), "test": (20,)})
    verify_dataset_integrity(str(run("isic2017", tmp_path / "src", raw).folder), num_processes=1)
    assert "verify_dataset_integrity Done" in capsys.readouterr().out


def test_dataset_json_says_where_the_images_come_from_and_on_which_terms(tmp_path: Path, raw: Path) -> None:
    write_parts(tmp_path / "src", {"train": "abc", "val": "d"})
    description = json.loads((run("isic2018", tmp_path / "src", raw).folder / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert description["labels"] == {"background": 0, "lesion": 1}
    assert (description["numTraining"], description["file_ending"]) == (4, ".png")
    assert description["overwrite_image_reader_writer"] == "NaturalImage2DIO"
    assert description["licence"] == "CC BY-NC 4.0"
    assert "isic-archive.com" in description["source"]
    assert (description["split"], description["size"]) == ("published", "native")


def test_the_split_is_where_training_reads_it_too(tmp_path: Path, raw: Path) -> None:
    write_parts(tmp_path / "src", {"train": "abc", "val": "d"})
    folder = run("isic2018", tmp_path / "src", raw, preprocessed=tmp_path / "pre").folder
    assert folds_in(tmp_path / "pre" / folder.name) == folds_in(folder)


def test_resizing_squashes_image_and_mask_alike(tmp_path: Path, raw: Path) -> None:
    write_pair(tmp_path / "src" / "images", tmp_path / "src" / "masks", "a", size=(96, 128))
    folder = run("uwf-rhs", tmp_path / "src", raw, resize=(48, 32)).folder
    image, mask = (pixels(folder / name) for name in ("imagesTr/a_0000.png", "labelsTr/a.png"))
    assert (image.shape, mask.shape) == ((48, 32, 3), (48, 32))
    assert set(np.unique(mask)) == {0, 1}
    truth = disk("a", (96, 128))[1]
    assert abs(mask.mean() - truth.mean()) < 0.02
    # the disk is bright: image and mask still agree on where it is
    assert image[mask == 1].mean() > image[mask == 0].mean() + 80


def test_copies_in_the_search_folder_are_not_written_twice(tmp_path: Path, raw: Path) -> None:
    write_parts(tmp_path / "src", {"train": "abcd", "val": "vw", "search": "bv"})
    # a copy under another name and in another format
    Image.open(tmp_path / "src/train/images/c.png").save(tmp_path / "src/search/images/again.bmp")
    Image.open(tmp_path / "src/train/masks/c.png").save(tmp_path / "src/search/masks/again.png")
    done = run("isic2017", tmp_path / "src", raw)
    assert cases_in(done.folder, "Tr") == set("abcdvw")
    assert folds_in(done.folder) == [
        {"train": ["a", "b", "c", "d"], "val": ["v", "w"]},
        {"train": ["a", "d"], "val": ["b", "c", "v"]},
    ]
    note = "search folder: 3 images, 2 copies of training images, 1 copies of validation images"
    assert note in done.conversion.notes


def test_new_images_in_the_search_folder_validate_a_fold_and_train_none(tmp_path: Path, raw: Path) -> None:
    write_parts(tmp_path / "src", {"train": "abcd", "val": "vw", "search": "xy"})
    folder = run("isic2017", tmp_path / "src", raw).folder
    assert cases_in(folder, "Tr") == set("abcdvwxy")
    assert folds_in(folder) == [
        {"train": ["a", "b", "c", "d"], "val": ["v", "w"]},
        {"train": ["a", "b", "c", "d"], "val": ["x", "y"]},
    ]


def test_the_benchmarks_search_folder_never_chooses_on_test_images(tmp_path: Path, raw: Path) -> None:
    write_joint(tmp_path / "src", ("cjua", "cjub", "1", "2"), {"Kvasir": ("cjut", "cjuu")}, ("cjua", "1", "cjut"))
    done = run("kvasir", tmp_path / "src", raw)
    assert cases_in(done.folder, "Ts") == {"cjut", "cjuu"}
    assert folds_in(done.folder) == [{"train": ["cjub", "clinicdb_002"], "val": ["cjua", "clinicdb_001"]}]
    assert "the copies of test images are not used for searching" in " ".join(done.conversion.notes)


@pytest.mark.parametrize(
    ("key", "test"), (("kvasir", sorted(kvasir.TEST)[:3]), ("clinicdb", sorted(clinicdb.TEST)[:3]))
)
def test_the_benchmarks_test_images_are_held_out_of_the_official_archive(
    tmp_path: Path, raw: Path, key: str, test: list[str]
) -> None:
    others = ["cjuother1", "cjuother2"] if key == "kvasir" else ["1", "2"]
    for stem in (*test, *others):
        write_pair(tmp_path / "src" / "images", tmp_path / "src" / "masks", stem)
    folder = run(key, tmp_path / "src", raw).folder
    names = {"kvasir": str, "clinicdb": lambda stem: f"clinicdb_{int(stem):03d}"}[key]
    assert cases_in(folder, "Ts") == set(map(names, test))
    assert cases_in(folder, "Tr") == set(map(names, others))
    assert not (folder / "splits_final.json").exists()


def test_videos_stay_together_although_the_benchmark_scatters_them(tmp_path: Path, raw: Path) -> None:
    frames = [str(frame) for frame in range(1, 613, 6)]
    tests = sorted(clinicdb.TEST & set(frames))
    write_joint(tmp_path / "src", ("cjua", *(f for f in frames if f not in tests)), {"CVC-ClinicDB": tests})
    folder = run("clinicdb", tmp_path / "src", raw, split="by-sequence:1").folder
    sides = [cases_in(folder, "Ts"), *(set(fold["val"]) for fold in folds_in(folder))]
    assert sum(map(len, sides)) == len(frames)
    sequences = [{clinicdb.video_of_frame(int(case[-3:])) for case in side} for side in sides]
    assert sum(map(len, sequences)) == len(set().union(*sequences))


def test_random_and_no_split(tmp_path: Path, raw: Path) -> None:
    for stem in "abcdefg":
        write_pair(tmp_path / "src" / "images", tmp_path / "src" / "masks", stem)
    folder = run("uwf-rhs", tmp_path / "src", raw, split="random:3").folder
    assert sorted(case for fold in folds_in(folder) for case in fold["val"]) == list("abcdefg")
    (tmp_path / "other").mkdir()
    assert not (
        run("uwf-rhs", tmp_path / "src", tmp_path / "other", split="none").folder / "splits_final.json"
    ).exists()


def test_ones_own_folders_with_labels_and_awkward_names(tmp_path: Path, raw: Path) -> None:
    images, masks = tmp_path / "pictures", tmp_path / "truth"
    for stem in ("first scan", "zweites-Bild(2)"):
        image, mask = write_pair(images, masks, stem, ".tif", "_mask")
        values = (np.asarray(Image.open(mask)) > 0).astype(np.uint8)
        values[:3, :3] = 2
        Image.fromarray(values).save(mask)
        Image.open(image).convert("L").save(image)
    folder = run("folders", images, raw, sources=(images, masks), labels=("cell", "debris"), name="Mine").folder
    assert folder.name == "Dataset700_Mine"
    assert cases_in(folder, "Tr") == {"first_scan", "zweites-Bild_2_"}
    description = json.loads((folder / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "cell": 1, "debris": 2}
    # all images are grey, so the network need not see three equal channels
    assert description["channel_names"] == {"0": "grey"}
    assert pixels(folder / "imagesTr" / "first_scan_0000.png").shape == (40, 48)
    assert set(np.unique(pixels(folder / "labelsTr" / "first_scan.png"))) == {0, 1, 2}


def test_equal_images_in_two_parts_are_reported(tmp_path: Path, raw: Path) -> None:
    write_parts(tmp_path / "src", {"train": "abc", "val": "d", "test": "e"})
    Image.open(tmp_path / "src/train/images/b.png").save(tmp_path / "src/test/images/e.png")
    notes = run("isic2017", tmp_path / "src", raw).conversion.notes
    assert any("1 image there more than once under other names, 1 of them in different parts" in note for note in notes)


@pytest.mark.parametrize(("key", "cases", "test"), (("isic2017", 400, 0), ("clinicdb", 24, 2), ("kvasir", 24, 2)))
def test_real_images(raw: Path, key: str, cases: int, test: int) -> None:
    source = SHARED_DATA / key
    if not source.is_dir():
        pytest.skip(f"the real images of {key} may not be shipped and are not here: {source}")
    folder = run(key, source, raw, processes=2, resize=(64, 64)).folder
    tested = cases_in(folder, "Ts") if test else set()
    assert (len(cases_in(folder, "Tr")) + len(tested), len(tested)) == (cases, test)
    for name in sorted(cases_in(folder, "Tr"))[:5]:
        assert set(np.unique(pixels(folder / "labelsTr" / f"{name}.png"))) == {0, 1}
        assert pixels(folder / "imagesTr" / f"{name}_0000.png").shape == (64, 64, 3)
