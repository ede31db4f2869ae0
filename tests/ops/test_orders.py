"""The scan orders are the published ones, and right for every shape."""

import json
from math import prod
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_slicemamba.ops import scan_orders
from nnunetv2_slicemamba.ops.orders import cached_inverse_orders, cached_orders

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "scan_orders.json").read_text())

images = st.integers(1, 3).flatmap(
    lambda axes: st.tuples(
        st.tuples(*[st.integers(1, 9)] * axes),
        st.tuples(*[st.integers(1, 5)] * axes),
    )
)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda g: "{height}x{width}-by-{slice_h}x{slice_w}".format(**g))
def test_orders_are_the_published_ones(golden: dict) -> None:
    orders = scan_orders((golden["height"], golden["width"]), (golden["slice_h"], golden["slice_w"]))
    assert orders.tolist() == golden["order"]


def test_the_golden_orders_include_images_that_are_not_square() -> None:
    assert any(golden["height"] != golden["width"] for golden in GOLDEN)


@given(images)
@settings(max_examples=150, deadline=None)
def test_every_direction_visits_every_token_once_and_every_second_is_a_reverse(image) -> None:
    sizes, thickness = image
    orders = scan_orders(sizes, thickness)
    assert orders.dtype == torch.int64
    assert orders.shape == (2 * len(sizes), prod(sizes))
    assert torch.equal(orders.sort(dim=1).values, torch.arange(prod(sizes)).expand_as(orders))
    assert torch.equal(orders[1::2], orders[::2].flip(1))


@given(images)
@settings(max_examples=150, deadline=None)
def test_bands_are_read_one_after_another_along_the_travel_axis(image) -> None:
    """Section by section: band in raster order, then position along the band, then raster order in the section."""
    sizes, thickness = image
    orders = scan_orders(sizes, thickness)
    axes = len(sizes)
    coordinates = torch.stack(torch.unravel_index(orders, sizes), -1)
    for direction, travel in enumerate(reversed(range(axes))):
        across = [axis for axis in range(axes) if axis != travel]
        keys = []
        for position in coordinates[2 * direction].tolist():
            band = [position[axis] // thickness[axis] for axis in across]
            keys.append((band, position[travel], [position[axis] for axis in across]))
        assert keys == sorted(keys)


@given(images)
@settings(max_examples=50, deadline=None)
def test_the_inverse_tells_when_a_token_is_visited(image) -> None:
    sizes, thickness = image
    device = torch.device("cpu")
    orders, inverse = cached_orders(sizes, thickness, device), cached_inverse_orders(sizes, thickness, device)
    assert torch.equal(orders.gather(1, inverse), torch.arange(prod(sizes)).expand_as(orders))


def test_an_order_in_three_dimensions_by_hand() -> None:
    orders = scan_orders((2, 2, 3), (1, 2, 2))
    # travel w: bands of 1 slice and 2 rows, each read column by column
    assert orders[0].tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    # travel h: bands of 1 slice and 2 columns, then the thinner one of the last column
    assert orders[2].tolist() == [0, 1, 3, 4, 2, 5, 6, 7, 9, 10, 8, 11]
    # travel d: bands of 2 rows and 2 columns, through both slices; then the last column
    assert orders[4].tolist() == [0, 1, 3, 4, 6, 7, 9, 10, 2, 5, 8, 11]


def test_a_caller_may_write_to_what_it_gets() -> None:
    first = scan_orders((3, 4), (2, 2))
    wanted = first.clone()
    first.zero_()
    assert torch.equal(scan_orders((3, 4), (2, 2)), wanted)


@pytest.mark.parametrize(
    ("sizes", "thickness", "message"),
    [
        ((4, 4), (0, 2), r"thickness is \(0, 2\), every entry must be at least 1; give"),
        ((4, 4), (2, -1), r"thickness is \(2, -1\), every entry must be at least 1; give"),
        ((0, 4), (2, 2), r"sizes is \(0, 4\), every entry must be at least 1; give"),
        ((4, 4), (2,), r"thickness \(2,\) has 1 entries and sizes \(4, 4\) has 2.*; give"),
        ((4, 4), (2, 2, 2), r"thickness \(2, 2, 2\) has 3 entries and sizes \(4, 4\) has 2.*; give"),
        ((), (), r"sizes is empty.*; give"),
        ((4, 4), (2.5, 2), r"thickness is \(2.5, 2\), every entry must be a whole number; give"),
        ((4, 4), 2, r"thickness is 2, it must be one whole number per spatial axis; give"),
    ],
)
def test_a_bad_slicing_is_refused_with_value_rule_and_remedy(sizes, thickness, message) -> None:
    with pytest.raises(ValueError, match=message):
        scan_orders(sizes, thickness)
