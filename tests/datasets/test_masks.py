"""A mask is taken for what it means, or refused with the values it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from PIL import Image

from nnunetv2_slicemamba.datasets.cases import Rules
from nnunetv2_slicemamba.datasets.conversion import Conversion
from nnunetv2_slicemamba.datasets.image_checks import examine
from nnunetv2_slicemamba.datasets.masks import MaskError, read_labels, to_labels
from nnunetv2_slicemamba.datasets.orientation import ORIENTATION
from nnunetv2_slicemamba.datasets.pairing import TEST, Pair
from nnunetv2_slicemamba.datasets.write_case import write_mask
from tests.datasets.dataset_sources import disk, run, write_pair

TRUTH = disk("mask", (96, 128))[1]


def saved(path: Path, image: Image.Image, **options: Any) -> np.ndarray:
    """The labels of an image that was written to a file."""
    image.save(path, **options)
    return read_labels(path)


@pytest.mark.parametrize("foreground", (1, 255))
def test_two_values_give_zero_and_one(tmp_path: Path, foreground: int) -> None:
    mask = Image.fromarray(TRUTH.astype(np.uint8) * np.uint8(foreground))
    assert np.array_equal(saved(tmp_path / "m.png", mask), TRUTH)


def test_one_bit_palette_colour_and_16_bit_masks_are_the_same_mask(tmp_path: Path) -> None:
    white = Image.fromarray(TRUTH.astype(np.uint8) * 255)
    palette = Image.fromarray(TRUTH.astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    deep = Image.fromarray(TRUTH.astype(np.uint16) * 65535)
    for name, image in {
        "bit.png": white.convert("1"),
        "palette.png": palette,
        "rgb.bmp": white.convert("RGB"),
        "alpha.png": white.convert("RGBA"),
        "deep.png": deep,
    }.items():
        assert np.array_equal(saved(tmp_path / name, image), TRUTH), name


def test_jpeg_and_antialiased_edges_are_cut_at_127(tmp_path: Path) -> None:
    white = Image.fromarray(TRUTH.astype(np.uint8) * 255)
    jpeg = saved(tmp_path / "m.jpg", white.convert("RGB"), quality=75)
    assert (jpeg != TRUTH).mean() < 0.01
    large = white.resize((512, 384), Image.Resampling.BICUBIC)
    small = to_labels(np.asarray(large.resize((128, 96), Image.Resampling.BILINEAR)))
    assert (small != TRUTH).mean() < 0.01


def test_an_empty_and_a_full_mask_are_masks() -> None:
    assert not to_labels(np.zeros((8, 8), np.uint8)).any()
    assert to_labels(np.full((8, 8), 255, np.uint8)).all()


@pytest.mark.parametrize(
    ("values", "told"),
    (
        (np.uint8([0, 1, 2]), "holds the values 0, 1, 2; expected 0 and 1, 0 and 255"),
        (np.uint8([0, 38]), "holds the values 0, 38"),
        (np.float32([0, 0.5]), "holds the values 0, 0.5; expected whole numbers"),
        (np.float32([0, np.nan]), "expected whole numbers"),
        (np.int32([-1, 0]), "holds the values -1, 0; expected whole numbers from 0"),
    ),
)
def test_other_values_are_refused_and_named(values: np.ndarray, told: str) -> None:
    with pytest.raises(MaskError, match=told):
        to_labels(np.resize(values, (30, 30)))


def test_a_third_grey_level_is_a_class_and_not_an_edge() -> None:
    values = TRUTH.astype(np.uint8) * 255
    values[4:20, 4:20] = 128
    with pytest.raises(MaskError, match="holds the values 0, 128, 255"):
        to_labels(values)


def test_a_photograph_is_no_mask(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match="is coloured"):
        saved(tmp_path / "photo.png", Image.fromarray(disk("photo")[0]))
    grey = Image.fromarray(disk("photo")[0]).convert("L")
    with pytest.raises(MaskError, match=r"different ones up to"):
        to_labels(np.asarray(grey))


def test_label_maps_keep_their_numbers_and_refuse_higher_ones() -> None:
    values = np.uint8([[0, 1, 2], [2, 2, 0]])
    assert np.array_equal(to_labels(values, n_labels=3), values)
    with pytest.raises(MaskError, match="holds the values 0, 1, 2; expected the labels 0 to 1|expected 0 and 1"):
        to_labels(values, n_labels=2)
    with pytest.raises(MaskError, match="expected the labels 0 to 2"):
        to_labels(values + np.uint8(1), n_labels=3)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("white", [False, True])
def test_a_jpeg_without_foreground_or_background_is_so_at_any_quality(tmp_path: Path, mode: str, white: bool) -> None:
    image = Image.new("L", (40, 24), 255 * white).convert(mode)
    for quality in range(1, 101):
        assert (saved(tmp_path / "m.jpg", image, quality=quality) == white).all(), quality


def test_labels_in_a_jpeg_are_refused(tmp_path: Path) -> None:
    Image.fromarray(TRUTH.astype(np.uint8)).save(tmp_path / "m.jpg", quality=95)
    with pytest.raises(MaskError, match=r"a JPEG with the values 0 to \d+, all black"):
        read_labels(tmp_path / "m.jpg")
    Image.fromarray(TRUTH.astype(np.uint8) * np.uint8(2)).save(tmp_path / "n.jpg", quality=100)
    with pytest.raises(MaskError, match="JPEG, which may change the numbers of labels"):
        read_labels(tmp_path / "n.jpg", n_labels=3)


def rim(value: int) -> np.ndarray:
    """TRUTH with the value 1 and a rim of another one, as where pixels that belong to nothing are marked."""
    values = TRUTH.astype(np.uint8)
    rows, columns = np.nonzero(TRUTH)
    edge = np.hypot(rows - rows.mean(), columns - columns.mean()) > np.sqrt(TRUTH.sum() / np.pi) - 3
    values[rows[edge], columns[edge]] = value
    return values


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (rim(255), "holds the values 0, 1, 255"),
        (np.where(TRUTH, np.uint8(30), 0) + np.uint8(240) * (np.arange(128) < 12), "holds the values 0, 30, 240"),
        (255 - rim(255), "holds the values 0, 254, 255"),
    ],
    ids=["void", "classes", "inverted"],
)
def test_two_kinds_of_black_or_of_white_are_classes(values: np.ndarray, told: str) -> None:
    with pytest.raises(MaskError, match=told):
        to_labels(values.astype(np.uint8))


def test_two_kinds_of_black_are_classes_beside_smooth_edges_too() -> None:
    soft = np.asarray(Image.fromarray(TRUTH.astype(np.uint8) * 255).resize((256, 192), Image.Resampling.BILINEAR))
    assert to_labels(soft).any()
    values = soft.copy()
    values[:20, :20] = 7
    with pytest.raises(MaskError, match="holds the values 0, "):
        to_labels(values)


def transparent(mode: str) -> Image.Image:
    """White on transparent white, or a palette with a transparent entry."""
    alpha = TRUTH.astype(np.uint8) * 255
    white = np.full(TRUTH.shape, 255, np.uint8)
    if mode == "RGBA":
        return Image.fromarray(np.stack([white, white, white, alpha], -1))
    return Image.fromarray(np.stack([white, alpha], -1), "LA")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_masks_are_refused(tmp_path: Path, mode: str) -> None:
    with pytest.raises(MaskError, match="transparent in places"):
        saved(tmp_path / "m.png", transparent(mode))


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_masks_with_a_transparent_colour_are_refused(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(TRUTH.astype(np.uint8) * 255).convert(mode)
    with pytest.raises(MaskError, match="transparent in places"):
        saved(tmp_path / "m.png", image, transparency=0)


def test_masks_of_several_pages_or_turned_ones_are_refused(tmp_path: Path) -> None:
    image = Image.fromarray(TRUTH.astype(np.uint8) * 255)
    with pytest.raises(MaskError, match="has 2 pages"):
        saved(tmp_path / "m.tif", image, save_all=True, append_images=[image])
    exif = image.getexif()
    exif[ORIENTATION] = 6
    with pytest.raises(MaskError, match="EXIF orientation 6"):
        saved(tmp_path / "m.jpg", image, exif=exif)


@pytest.mark.parametrize("n_labels", [256, 257, 301, 32768])
def test_labels_above_255_keep_their_numbers_in_the_written_mask(tmp_path: Path, n_labels: int) -> None:
    values = np.linspace(0, n_labels - 1, 3600).astype(np.int32).reshape(60, 60)
    Image.fromarray(values).save(tmp_path / "m.tif")
    for resize in (None, (60, 60)):
        write_mask(tmp_path / "m.tif", Rules(resize, n_labels), tmp_path / "written.png")
        read = NaturalImage2DIO().read_seg(str(tmp_path / "written.png"))[0]
        assert np.array_equal(read[0, 0], values)


def coloured(labels: np.ndarray, first: tuple[int, int, int] = (0, 0, 0)) -> Image.Image:
    """A mask as annotation tools write it: the labels are numbers of colours."""
    image = Image.fromarray(labels.astype(np.uint8), "P")
    image.putpalette([*first, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    return image


@pytest.mark.parametrize("ending", [".png", ".gif"])
def test_the_numbers_of_a_coloured_palette_are_the_labels(tmp_path: Path, ending: str) -> None:
    labels = TRUTH * 2
    coloured(labels).save(tmp_path / f"m{ending}", optimize=False)
    assert np.array_equal(read_labels(tmp_path / f"m{ending}", n_labels=3), labels)
    assert np.array_equal(saved(tmp_path / "one.png", coloured(TRUTH)), TRUTH)


def test_a_coloured_palette_that_does_not_begin_with_black_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match=r"has a palette whose colour 0 is \(255, 255, 255\)"):
        saved(tmp_path / "m.png", coloured(TRUTH, (255, 255, 255)))


def test_a_palette_of_greys_is_resolved_whatever_the_order_of_its_colours(tmp_path: Path) -> None:
    swapped = Image.fromarray((~TRUTH).astype(np.uint8), "P")
    swapped.putpalette([2, 2, 2, 0, 0, 0])
    swapped.save(tmp_path / "m.png")
    assert np.array_equal(read_labels(tmp_path / "m.png", n_labels=3), TRUTH * 2)


def own_masks(tmp_path: Path, values: list[np.ndarray], labels: int) -> Conversion:
    """The conversion of images with these masks and that many labels."""
    (tmp_path / "raw").mkdir()
    for number, mask in enumerate(values):
        _, path = write_pair(tmp_path / "images", tmp_path / "masks", f"a{number}", size=TRUTH.shape)
        Image.fromarray(mask).save(path)
    sources, names = (tmp_path / "images", tmp_path / "masks"), tuple(f"part{i}" for i in range(1, labels + 1))
    return run("folders", tmp_path, tmp_path / "raw", sources=sources, labels=names).conversion


def test_white_is_not_taken_for_label_255_of_300(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="all masks hold 0 and 255 only, of 301 labels; if 255 is white, name one"):
        own_masks(tmp_path, [TRUTH.astype(np.uint8) * np.uint8(255)] * 2, 300)


def test_labels_that_no_mask_holds_are_named(tmp_path: Path) -> None:
    notes = own_masks(tmp_path, [TRUTH.astype(np.uint8), TRUTH.astype(np.uint8) * np.uint8(3)], 4).notes
    assert "2 labels in no mask: part2, part4" in notes


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_colours_of_16_bits_are_refused_rather_than_narrowed(tmp_path: Path, ending: str) -> None:
    values = np.repeat(TRUTH[..., None].astype(np.uint16) * np.uint16(300), 3, axis=-1)
    path = tmp_path / f"m{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=True), str(path))
    with pytest.raises(MaskError, match="has 16 bits per colour, of which 8 would be lost"):
        read_labels(path, n_labels=301)
    assert [problem.kind for problem in examine(Pair("m", path, None, TEST), 2).problems] == ["unexpected image"]
