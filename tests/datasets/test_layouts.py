"""Every layout in which people have the datasets is recognised, and its images find their masks."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetv2_slicemamba.datasets.image_converter import ImageConverter
from nnunetv2_slicemamba.datasets.pairing import FoundPairs
from nnunetv2_slicemamba.datasets.registry import converter_of
from nnunetv2_slicemamba.datasets.request import Request
from tests.datasets.dataset_sources import write_isic2017, write_joint, write_pair, write_parts


def find_pairs(key: str, source: Path, train: str = "joint") -> FoundPairs:
    """The pairs that the converter with that key finds."""
    converter = converter_of(key)
    assert isinstance(converter, ImageConverter)
    return converter.find(Request(key, (source,), 700, train=train))


def parts_of(found: FoundPairs) -> dict[str, set[str]]:
    """Stems per part, after checking that every mask belongs to its image."""
    assert found.problems == []
    stems: dict[str, set[str]] = {}
    for pair in found.pairs:
        assert pair.mask is not None
        assert pair.mask.stem.startswith(pair.stem)
        stems.setdefault(pair.part, set()).add(pair.stem)
    return stems


@pytest.mark.parametrize("ending", (".jpg", ".png", ".tif", ".bmp", ".JPG"))
def test_official_isic_folders_in_any_image_format_without_superpixels(tmp_path: Path, ending: str) -> None:
    write_isic2017(tmp_path / "download", {"train": (1, 2), "val": (3,), "test": (4,)}, ending)
    found = find_pairs("isic2017", tmp_path)
    assert found.layout == "official"
    assert parts_of(found) == {
        "train": {"ISIC_0000001", "ISIC_0000002"},
        "val": {"ISIC_0000003"},
        "test": {"ISIC_0000004"},
    }


def test_official_isic2018_folders_inside_folders_of_the_same_name(tmp_path: Path) -> None:
    twice = "ISIC2018_Task1-2_Training_Input"
    images = tmp_path / twice / twice
    write_pair(images, tmp_path / "ISIC2018_Task1_Training_GroundTruth", "ISIC_0000000", ".jpg", "_segmentation")
    assert parts_of(find_pairs("isic2018", tmp_path)) == {"train": {"ISIC_0000000"}}


@pytest.mark.parametrize("key", ("isic2017", "isic2018", "kvasir", "clinicdb", "uwf-rhs"))
def test_shared_train_and_val_folders_with_a_search_folder(tmp_path: Path, key: str) -> None:
    write_parts(tmp_path / "data" / "isic17", {"train": "ab", "val": "c", "search": "a", "test": "d"})
    found = find_pairs(key, tmp_path)
    assert found.layout == "parts"
    assert parts_of(found) == {"train": {"a", "b"}, "val": {"c"}, "search": {"a"}, "test": {"d"}}


@pytest.mark.parametrize("key", ("kvasir", "uwf-rhs"))
def test_one_folder_of_images_and_one_of_masks(tmp_path: Path, key: str) -> None:
    write_pair(tmp_path / "Kvasir-SEG" / "images", tmp_path / "Kvasir-SEG" / "masks", "a", ".jpg", mask_ending=".jpg")
    found = find_pairs(key, tmp_path)
    assert (found.layout, parts_of(found)) == ("flat", {"train": {"a"}})


def test_clinicdb_has_original_and_ground_truth(tmp_path: Path) -> None:
    write_pair(tmp_path / "TIF" / "Original", tmp_path / "TIF" / "Ground Truth", "12", ".tif", mask_ending=".tif")
    assert parts_of(find_pairs("clinicdb", tmp_path)) == {"train": {"12"}}


def test_clinicdb_as_tif_and_as_png_asks_for_one(tmp_path: Path) -> None:
    for kind in ("PNG", "TIF"):
        write_pair(tmp_path / kind / "Original", tmp_path / kind / "Ground Truth", "12")
    with pytest.raises(ValueError, match=r"more than once; name one of them as the source: .*PNG.*TIF"):
        find_pairs("clinicdb", tmp_path)


@pytest.mark.parametrize(("key", "own", "test"), (("kvasir", {"cjua"}, "cjut"), ("clinicdb", {"1", "2"}, "9")))
def test_the_polyp_benchmark_trains_jointly_and_tests_on_one_dataset(
    tmp_path: Path, key: str, own: set[str], test: str
) -> None:
    write_joint(
        tmp_path, ("cjua", "1", "2"), {"Kvasir": ("cjut",), "CVC-ClinicDB": ("9",), "ETIS": ("x",)}, ("cjua", "1")
    )
    joint = find_pairs(key, tmp_path)
    assert joint.layout == "joint"
    assert parts_of(joint) == {"train": {"cjua", "1", "2"}, "test": {test}, "search": {"cjua", "1"}}
    alone = parts_of(find_pairs(key, tmp_path, train="own"))
    assert alone == {"train": own, "test": {test}, "search": own & {"cjua", "1"}}


def test_a_benchmark_without_the_datasets_test_folder_is_refused(tmp_path: Path) -> None:
    write_joint(tmp_path, ("1",), {"ETIS": ("x",)})
    with pytest.raises(ValueError, match=r"laid out as the polyp benchmark, but .*kvasir has no folder of images"):
        find_pairs("kvasir", tmp_path)


def test_test_images_without_truth_are_kept_without_masks(tmp_path: Path) -> None:
    write_isic2017(tmp_path, {"train": (1,), "test": (2,)})
    for mask in (tmp_path / "ISIC-2017_Test_v2_Part1_GroundTruth").iterdir():
        mask.unlink()
    found = find_pairs("isic2017", tmp_path)
    assert found.problems == []
    assert [pair.mask for pair in found.pairs if pair.part == "test"] == [None]
    assert any("imagesTs without labelsTs" in note for note in found.notes)


def test_an_unknown_layout_names_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(
        ValueError, match=r"holds none of the layouts of isic2017; expected ISIC-2017_.*; or \{train,val\}"
    ):
        find_pairs("isic2017", tmp_path)
