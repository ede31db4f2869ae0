"""Everything that is wrong with a source is listed at once, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunetv2_slicemamba.datasets.orientation import ORIENTATION
from tests.datasets.dataset_sources import run, write_isic2017, write_pair, write_parts


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Eight images in train and two in val, all in order."""
    write_parts(tmp_path / "source", {"train": [f"t{i}" for i in range(8)], "val": ["v0", "v1"]})
    return tmp_path / "source"


def refusal(source: Path, key: str = "isic2017") -> str:
    """The message of the refused conversion, after which there must be no target."""
    raw = source.parent / "raw"
    raw.mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="cannot be converted") as refused:
        run(key, source, raw)
    assert not any(raw.iterdir())
    return str(refused.value)


def test_all_kinds_of_problems_are_found_in_one_go(source: Path) -> None:
    images, masks = source / "train" / "images", source / "train" / "masks"
    (masks / "t0.png").unlink()
    (images / "t1.png").unlink()
    Image.open(images / "t2.png").resize((20, 20)).save(images / "t2.png")
    Image.fromarray(np.full((40, 48), 7, np.uint8)).save(masks / "t3.png")
    (images / "t4.png").write_bytes((images / "t4.png").read_bytes()[:400])
    (masks / "t5.png").write_bytes(b"not an image")
    Image.open(images / "t6.png").save(images / "t6.bmp")
    write_pair(source / "val" / "images", source / "val" / "masks", "t7")
    message = refusal(source)
    for told in (
        "8 problems found and nothing written",
        "image without mask (1):",
        f"{images / 't0.png'}",
        "mask without image (1):",
        f"{masks / 't1.png'}",
        "sizes differ (width x height) (1):",
        "t2.png 20x20",
        "unexpected mask (1):",
        "t3.png holds the values 7",
        "unreadable or cut off (2):",
        "t4.png (400 bytes)",
        "t5.png (12 bytes)",
        "duplicate name (1):",
        "t6.bmp and t6.png",
        "same name in two parts (1):",
        "t7.png",
    ):
        assert told in message, told


def test_images_with_nnunets_channel_number_get_one_hint_instead_of_two_problems_each(tmp_path: Path) -> None:
    raw, images, masks = tmp_path / "raw", tmp_path / "nnunet" / "images", tmp_path / "nnunet" / "masks"
    raw.mkdir()
    for case in "abc":
        write_pair(images, masks, case)
        (images / f"{case}.png").rename(images / f"{case}_0000.png")
    with pytest.raises(ValueError, match="1 problem found") as refused:
        run("uwf-rhs", tmp_path / "nnunet", raw)
    message = str(refused.value)
    assert "a_0000 and 2 more end with _0000 or the like, nnU-Net's number of the channel" in message
    assert "needs no conversion: put its folder into nnUNet_raw" in message
    assert "name the images as their masks, here a in place of a_0000" in message
    write_pair(images, tmp_path / "unused", "a_0001")
    with pytest.raises(ValueError, match="Several channels per case are joined by 'slicemamba convert folders' only"):
        run("uwf-rhs", tmp_path / "nnunet", raw)
    # as an ending of both it is a name as any other
    for case in "abc":
        (masks / f"{case}.png").rename(masks / f"{case}_0000.png")
    (images / "a_0001.png").unlink()
    assert run("folders", images, raw, sources=(images, masks)).written == 3


def test_of_many_problems_of_a_kind_the_rest_is_counted(tmp_path: Path) -> None:
    write_parts(tmp_path / "source", {"train": [f"t{i:02d}" for i in range(40)]})
    for mask in (tmp_path / "source" / "train" / "masks").iterdir():
        mask.unlink()
    message = refusal(tmp_path / "source")
    assert "image without mask (40):" in message
    assert "and 15 more" in message


def test_a_truncated_jpeg_is_found(tmp_path: Path) -> None:
    write_isic2017(tmp_path / "source", {"train": range(3)})
    image = tmp_path / "source" / "ISIC-2017_Training_Data" / "ISIC_0000001.jpg"
    image.write_bytes(image.read_bytes()[:-300])
    assert "ISIC_0000001.jpg" in refusal(tmp_path / "source")


def test_16_bit_images_are_refused_rather_than_clipped(source: Path) -> None:
    Image.fromarray(np.full((40, 48), 40000, np.uint16)).save(source / "val" / "images" / "v0.png")
    message = refusal(source)
    assert "unexpected image (1):" in message
    assert "has mode I;16; expected 8 bit" in message


def test_masks_of_a_whole_part_are_missing(tmp_path: Path) -> None:
    write_isic2017(tmp_path / "source", {"train": (1,), "val": (2,)})
    for mask in (tmp_path / "source" / "ISIC-2017_Validation_Part1_GroundTruth").iterdir():
        mask.unlink()
    assert "ISIC-2017_Validation_Data has no folder of masks beside it" in refusal(tmp_path / "source")


def test_frames_that_would_become_one_case_of_the_benchmark_are_refused(tmp_path: Path) -> None:
    for stem in ("14", "014"):
        write_pair(tmp_path / "source" / "Original", tmp_path / "source" / "Ground Truth", stem)
    message = refusal(tmp_path / "source", "clinicdb")
    assert "names too alike (1):" in message
    assert "would both be clinicdb_014" in message


def test_images_of_several_pages_are_refused(source: Path) -> None:
    folder = source / "train" / "images"
    image = Image.open(folder / "t0.png")
    (folder / "t0.png").unlink()
    image.save(folder / "t0.tif", save_all=True, append_images=[image] * 11)
    message = refusal(source)
    assert "several pages (1):" in message
    assert "t0.tif has 12; expected one per file" in message


def turn(source: Path, number: int, size: tuple[int, int]) -> None:
    """Gives the image t0 an EXIF orientation, and its mask the size (width, height)."""
    folder = source / "train" / "images"
    image = Image.open(folder / "t0.png")
    exif = image.getexif()
    exif[ORIENTATION] = number
    image.save(folder / "t0.png", exif=exif)
    mask = np.zeros(size[::-1], np.uint8)
    mask[:5] = 255
    Image.fromarray(mask).save(source / "train" / "masks" / "t0.png")


@pytest.mark.parametrize("number", [2, 3, 4])
def test_turned_images_whose_masks_fit_both_ways_are_refused(source: Path, number: int) -> None:
    turn(source, number, (48, 40))
    message = refusal(source)
    assert "turned by its EXIF entry (1):" in message
    assert f"has the orientation {number}, and whether its mask belongs to the stored or to the shown pixels" in message


@pytest.mark.parametrize("size", [(48, 40), (40, 48)], ids=["stored", "shown"])
def test_the_masks_size_tells_how_an_image_is_meant(source: Path, size: tuple[int, int]) -> None:
    stored = np.asarray(Image.open(source / "train" / "images" / "t0.png"))
    turn(source, 6, size)  # shown turned by 90 degrees, clockwise
    (source.parent / "raw").mkdir()
    folder = run("isic2017", source, source.parent / "raw").folder
    written = np.asarray(Image.open(folder / "imagesTr" / "t0_0000.png"))
    assert np.array_equal(written, stored if size == (48, 40) else np.rot90(stored, -1))
    assert Image.open(folder / "labelsTr" / "t0.png").size == size
