"""HD95 and NSD of shapes whose distances are known, at any spacing, and of empty masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nnunetv2_slicemamba.evaluation.masks import Masks, bounding_box
from nnunetv2_slicemamba.evaluation.surface import hd95, nsd

masks = arrays.arrays(np.bool_, (9, 10))
spacings = st.tuples(st.floats(0.25, 4), st.floats(0.25, 4))


def surface_scores(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing: tuple[float, ...],
    tolerance: float,
    one_empty: str = "undefined",
) -> tuple[float, float]:
    """(HD95, NSD)"""
    masks = Masks(truth, prediction, spacing)
    return hd95(masks, one_empty), nsd(masks, tolerance)


def about(*values: float) -> object:
    """Equal to values that agree up to float32, NaN being equal to NaN."""
    return pytest.approx(values, rel=1e-5, abs=1e-6, nan_ok=True)


def box(size: tuple[int, ...], start: tuple[int, ...], lengths: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[tuple(slice(one, one + length) for one, length in zip(start, lengths, strict=True))] = True
    return mask


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_parallel_plates_are_as_far_apart_as_the_spacing_of_their_axis_says(axis: int) -> None:
    spacing = (5.0, 0.5, 2.0)
    plates = []
    for position in (2, 5):
        mask = np.zeros((8, 9, 10), dtype=bool)
        mask[tuple(position if other == axis else slice(None) for other in range(3))] = True
        plates.append(mask)
    found = surface_scores(*plates, spacing, tolerance=3 * spacing[axis])
    assert found == (pytest.approx(3 * spacing[axis]), 1)
    # a plate has two sides, of which the near one is two pixels away
    assert surface_scores(*plates, spacing, tolerance=1.9 * spacing[axis])[1] < 0.5


def test_single_pixels_in_2d() -> None:
    truth, prediction = box((20, 20), (4, 4), (1, 1)), box((20, 20), (7, 8), (1, 1))
    assert surface_scores(truth, prediction, (1.0, 1.0), 1.0) == about(5.0, 0.0)
    assert surface_scores(truth, prediction, (1.0, 1.0), 5.0) == about(5.0, 1.0)
    assert surface_scores(truth, prediction, (2.0, 0.75), 1.0) == about(math.hypot(6, 3), 0.0)


def test_the_larger_direction_counts() -> None:
    """A large square that holds a small one in its corner: only the large one's border is far away."""
    truth, prediction = box((40, 40), (5, 5), (20, 20)), box((40, 40), (5, 5), (2, 2))
    border = [
        min(math.hypot(y - b, x - a) for b in (5, 6) for a in (5, 6))
        for y in range(5, 25)
        for x in range(5, 25)
        if y in (5, 24) or x in (5, 24)
    ]
    assert hd95(Masks(truth, prediction, (1.0, 1.0))) == pytest.approx(np.percentile(border, 95), rel=1e-5)


@pytest.mark.parametrize("step", [1.0, 4.0])
def test_nsd_weighs_borders_by_their_length(step: float) -> None:
    """A square moved by 3 along one axis: its ends, which get longer with the other axis's spacing, are off."""
    truth, prediction = box((30, 40), (5, 5), (20, 20)), box((30, 40), (5, 8), (20, 20))
    length, outline = 20 * step, 2 * (20 * step + 20)
    # beyond the tolerance of 1: one end with 2 of either side, and the other end but for 1 at its corners
    off = (length + 2 * 2) + (length - 2 * 1)
    assert nsd(Masks(truth, prediction, (step, 1.0)), 1.0) == pytest.approx(1 - off / outline, abs=0.03)


def test_an_object_that_fills_the_image_has_a_border() -> None:
    full = np.ones((5, 6), dtype=bool)
    assert surface_scores(full, full, (1.0, 1.0), 0.0) == about(0.0, 1.0)


def test_empty_masks() -> None:
    empty, full = np.zeros((4, 7, 5), dtype=bool), box((4, 7, 5), (1, 1, 1), (2, 2, 2))
    spacing = (3.0, 1.0, 2.0)
    assert surface_scores(empty, empty, spacing, 1.0) == about(math.nan, math.nan)
    assert surface_scores(empty, empty, spacing, 1.0, "diagonal") == about(math.nan, math.nan)
    for one, other in ((empty, full), (full, empty)):
        assert surface_scores(one, other, spacing, 1.0) == about(math.nan, 0.0)
        assert surface_scores(one, other, spacing, 1.0, "diagonal") == about(math.hypot(9, 6, 8), 0.0)


@settings(max_examples=40, deadline=None)
@given(one=masks, other=masks, spacing=spacings, tolerance=st.floats(0, 6))
def test_symmetric_bounded_and_perfect_only_for_equal_borders(
    one: np.ndarray, other: np.ndarray, spacing: tuple[float, float], tolerance: float
) -> None:
    there, back = surface_scores(one, other, spacing, tolerance), surface_scores(other, one, spacing, tolerance)
    assert there == about(*back)
    if one.any() and other.any():
        extent = math.hypot(*((size - 1) * step for size, step in zip(one.shape, spacing, strict=True)))
        assert 0 <= there[0] <= extent * (1 + 1e-6)
        assert 0 <= there[1] <= 1
        assert surface_scores(one, one, spacing, tolerance) == about(0.0, 1.0)


@settings(max_examples=25, deadline=None)
@given(one=masks, other=masks, spacing=spacings)
def test_background_around_the_objects_changes_nothing(
    one: np.ndarray, other: np.ndarray, spacing: tuple[float, float]
) -> None:
    padded = [np.pad(mask, ((3, 1), (0, 4))) for mask in (one, other)]
    found = surface_scores(*padded, spacing, 1.0)
    expected = surface_scores(one, other, spacing, 1.0)
    assert found == about(*expected)


def test_bounding_box() -> None:
    assert bounding_box(box((9, 8, 7), (2, 0, 6), (3, 8, 1))) == (slice(2, 5), slice(0, 8), slice(6, 7))


def test_arrays_that_are_no_masks_are_refused() -> None:
    values = np.array([[0.0, np.nan], [1.0, 1.0]])
    with pytest.raises(TypeError, match="the prediction has the type float64, masks are bool"):
        Masks(values > 0, values, (1.0, 1.0))
