"""Networks and blocks refuse what they cannot work with, naming what they expect, what they got and the remedy."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from nnunetv2_slicemamba.nets import BSS, S3Block, SliceMambaResidualUNet, SliceMambaSupernet, SliceMambaUNet
from tests.nets.residual_networks import arguments

Settings = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("n_dims", "shape", "message"),
    [
        (2, (1, 2, 4, 32, 32), "expected (B, 2, H, W), got (1, 2, 4, 32, 32): this network reads 2D images"),
        (3, (1, 2, 32, 32), "expected (B, 2, D, H, W), got (1, 2, 32, 32): this network reads 3D images"),
        (2, (2, 32, 32), "expected (B, 2, H, W), got (2, 32, 32): add the batch axis, x[None]"),
        (2, (1, 32, 32, 2), "expected (B, 2, H, W), got (1, 32, 32, 2): move the channels forward, x.movedim(-1, 1)"),
        (2, (1, 3, 32, 32), "expected (B, 2, H, W), got (1, 3, 32, 32): this network reads 2D images with 2 channels"),
    ],
)
def test_an_image_of_another_shape_is_refused(
    n_dims: int, shape: tuple[int, ...], message: str, settings: Settings
) -> None:
    residual = SliceMambaResidualUNet(**arguments(n_dims))
    for network in (SliceMambaUNet(**settings(n_dims)), SliceMambaSupernet(**settings(n_dims)), residual):
        with pytest.raises(ValueError, match=re.escape(message)):
            network(torch.zeros(shape))


def test_an_image_of_whole_numbers_is_refused(settings: Settings) -> None:
    with pytest.raises(ValueError, match=r"floating type, got torch.uint8: convert it, x.float\(\)"):
        SliceMambaUNet(**settings())(torch.zeros(1, 2, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize("image", [np.zeros((1, 2, 32, 32), np.float32), None])
def test_what_is_no_tensor_is_refused(image: Any, settings: Settings) -> None:
    for network in (SliceMambaUNet(**settings()), SliceMambaSupernet(**settings())):
        with pytest.raises(ValueError, match=f"the image is of type {type(image).__name__}, it must be a tensor"):
            network(image)


def test_an_image_without_a_pixel_is_refused(settings: Settings) -> None:
    for network in (SliceMambaUNet(**settings()), SliceMambaResidualUNet(**arguments(2))):
        with pytest.raises(ValueError, match=r"has shape \(1, 2, 0, 32\), without a single pixel: leave it out"):
            network(torch.zeros(1, 2, 0, 32))


def test_channels_first_tokens_are_refused_by_a_bss() -> None:
    with pytest.raises(ValueError, match=re.escape("expected (B, H, W, 8), channels last, got (1, 8, 5, 5)")):
        BSS(8)(torch.zeros(1, 8, 5, 5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strides": 2}, "strides is 2, it must have an entry per stage and axis: give a list"),
        ({"strides": [4, 2, 2]}, "must have an entry per spatial axis in every stage: write [2, 2] in place of 2"),
        ({"n_blocks_per_stage": 2}, "n_blocks_per_stage is 2, it must have an entry per stage: give a list"),
        ({"features_per_stage": 8}, "features_per_stage is 8, it must have an entry per stage: give a list"),
        ({"features_per_stage": [8.0, 16, 32]}, "features_per_stage [8.0, 16, 32] must all be whole numbers"),
        ({"stem_features": 8}, "stem_features is 8, it must have an entry per stage: give a list"),
        ({"n_stages": 0}, "n_stages [0] must all be at least 1"),
        ({"slicing": 2}, "slicing is 2, it must have a candidate per block"),
        ({"slicing": (2, 4)}, "thickness 2 is one number: give one per spatial axis, such as (2, 2)"),
        ({"slicing": [(2, 2.5)] * 8}, "every entry must be a whole number from 1 to 255"),
    ],
)
def test_numbers_where_lists_are_meant_are_refused(changes: dict[str, Any], message: str, settings: Settings) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        SliceMambaUNet(**settings(**changes))


@pytest.mark.parametrize("kind", [BSS, S3Block])
def test_one_number_as_thickness_is_refused(kind: type[torch.nn.Module]) -> None:
    with pytest.raises(ValueError, match="thickness 2 is one number: give one per spatial axis"):
        kind(8, thickness=2)


def test_arrays_do_as_well_as_lists(settings: Settings) -> None:
    lists = settings()
    arrays = {name: np.array(value) if isinstance(value, list) else value for name, value in lists.items()}
    assert SliceMambaUNet(**arrays).settings == SliceMambaUNet(**lists).settings


def test_a_trace_holds_no_check(settings: Settings) -> None:
    network = SliceMambaUNet(**settings()).eval()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        traced = torch.jit.trace(network, torch.zeros(1, 2, 16, 16), check_trace=False)
    assert [str(one.message) for one in caught if one.filename.endswith("checks.py")] == []
    assert traced(torch.zeros(3, 2, 16, 16)).shape == (3, 3, 16, 16)
