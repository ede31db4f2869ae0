"""A mask is taken for what it means, or refused with the values it holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dataset_sources import disk
from PIL import Image

from nnunetv2_slicemamba.datasets.masks import MaskError, read_mask, to_labels

TRUTH = disk("mask", (96, 128))[1]


def saved(path: Path, image: Image.Image, **options: int) -> np.ndarray:
    image.save(path, **options)
    return read_mask(path)


@pytest.mark.parametrize("foreground", (1, 255))
def test_two_values_give_zero_and_one(tmp_path: Path, foreground: int) -> None:
    values = saved(tmp_path / "m.png", Image.fromarray(TRUTH.astype(np.uint8) * np.uint8(foreground)))
    assert np.array_equal(to_labels(values), TRUTH)


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
        assert np.array_equal(to_labels(saved(tmp_path / name, image)), TRUTH), name


def test_jpeg_and_antialiased_edges_are_cut_at_127(tmp_path: Path) -> None:
    white = Image.fromarray(TRUTH.astype(np.uint8) * 255)
    jpeg = to_labels(saved(tmp_path / "m.jpg", white.convert("RGB"), quality=75))
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
