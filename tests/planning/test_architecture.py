"""nnU-Net's strides become SliceMamba's stages, and the memory model counts what they need."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

from nnunetv2_slicemamba.nets import SliceMambaSupernet, SliceMambaUNet
from nnunetv2_slicemamba.planning.architecture import architecture_kwargs, fuse_strides
from nnunetv2_slicemamba.planning.memory import MemoryModel, bytes_per_sample, feature_map_sizes, static_bytes

PAPER = [[1, 1], [2, 2], [2, 2], [2, 2], [2, 2], [2, 2]]
SPACINGS = [(1.0, 1.0), (0.5, 2.0), (1.0, 1.0, 1.0), (5.0, 1.0, 1.0), (3.0, 0.5, 0.8)]


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        (PAPER, [[4, 4], [2, 2], [2, 2], [2, 2]]),
        ([*PAPER, [2, 2]], [[4, 4], [2, 2], [2, 2], [2, 2]]),
        ([[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2]], [[1, 4, 4], [2, 2, 2], [2, 2, 2]]),
        ([[1, 1], [2, 2], [2, 1], [2, 1]], [[4, 2], [2, 1]]),
        ([[1, 1], [2, 2]], [[2, 2]]),
        ([[1, 1]], [[1, 1]]),
    ],
)
def test_the_first_poolings_become_the_patch_embedding_and_at_most_three_follow(
    pooling: list[list[int]], expected: list[list[int]]
) -> None:
    assert fuse_strides(pooling) == expected


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize("largest", [3, 5, 7, 8, 13, 16, 31, 40, 100, 256, 700])
def test_no_feature_map_is_below_four_tokens_on_an_axis_that_is_reduced(
    spacing: tuple[float, ...], largest: int
) -> None:
    # the axis with the smallest spacing has most voxels
    patch = [max(1, round(largest * min(spacing) / s)) for s in spacing]
    _, pooling, _, patch, _ = get_pool_and_conv_props(np.array(spacing), patch, 4, 999999)
    strides = architecture_kwargs(pooling, "S")["strides"]
    for sizes, reduced in zip(feature_map_sizes(patch, strides), np.cumprod(strides, axis=0), strict=True):
        for size, factor in zip(sizes, reduced, strict=True):
            assert factor == 1 or size >= 4, (patch, strides)


@pytest.mark.parametrize(("size", "width"), [("S", 24), ("M", 48), ("L", 96)])
def test_sizes_differ_in_width_and_the_full_depth_is_the_papers(size: str, width: int) -> None:
    kwargs = architecture_kwargs(PAPER, size)
    assert kwargs["features_per_stage"] == [width, 2 * width, 4 * width, 8 * width]
    assert kwargs["n_blocks_per_stage"] == [2, 2, 9, 2]
    assert kwargs["n_blocks_per_stage_decoder"] == [2, 2, 2, 1]
    assert (kwargs["d_state"], kwargs["expand"], kwargs["drop_path_rate"]) == (16, 2, 0.2)


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_fewer_poolings_give_a_shallower_network_that_can_be_built(stages: int) -> None:
    kwargs = architecture_kwargs(PAPER[: stages + 2], "S")
    assert kwargs["n_stages"] == stages
    network = SliceMambaUNet(1, 2, **kwargs)
    # the last decoder stage is the one at the highest resolution, in the paper a single block
    assert len(network.decoder.stages[-1].blocks) == 1
    assert network.n_blocks == sum(kwargs["n_blocks_per_stage"]) + sum(kwargs["n_blocks_per_stage_decoder"])


def test_feature_maps_of_a_patch_that_the_stride_does_not_divide_are_rounded_up() -> None:
    assert feature_map_sizes([33, 64], [[4, 4], [2, 1]]) == [(9, 16), (5, 16)]


@pytest.mark.parametrize("pooling", [PAPER, [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2]]], ids=["2d", "3d"])
def test_memory_grows_with_everything_that_costs_memory(pooling: list[list[int]]) -> None:
    kwargs = architecture_kwargs(pooling, "S")
    patch = [64] * len(pooling[0])

    def estimate(patch: list[int] = patch, channels: int = 1, classes: int = 2, **changes: Any) -> float:
        return bytes_per_sample(patch, channels, classes, kwargs | changes)

    base = estimate()
    assert base > 0
    assert base < estimate(channels=2)
    assert base < estimate(classes=3)
    assert base < estimate(d_state=32)
    assert base < estimate(expand=3)
    assert base < estimate(features_per_stage=[2 * width for width in kwargs["features_per_stage"]])
    for blocks in ("n_blocks_per_stage", "n_blocks_per_stage_decoder"):
        for i in range(kwargs["n_stages"]):
            deeper = list(kwargs[blocks])
            deeper[i] += 1
            assert base < estimate(**{blocks: deeper})
    for axis in range(len(patch)):
        larger = list(patch)
        larger[axis] *= 2
        # nearly everything is proportional to the voxels
        assert estimate(larger) == pytest.approx(2 * base, rel=0.01)


def test_blocks_at_high_resolution_cost_more_than_the_same_blocks_below() -> None:
    kwargs = architecture_kwargs(PAPER, "S")
    first, last = (
        bytes_per_sample([256, 256], 1, 2, kwargs | {"n_blocks_per_stage_decoder": blocks})
        for blocks in ([1, 1, 1, 9], [9, 1, 1, 1])
    )
    assert first > last


def test_memory_grows_with_the_size() -> None:
    sizes = [architecture_kwargs(PAPER, size) for size in ("S", "M", "L")]
    for smaller, larger in pairwise(sizes):
        assert bytes_per_sample([256, 256], 3, 2, smaller) < bytes_per_sample([256, 256], 3, 2, larger)
        assert static_bytes(3, 2, smaller) < static_bytes(3, 2, larger)


@pytest.mark.parametrize("pooling", [PAPER[:4], [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2]]], ids=["2d", "3d"])
def test_weights_are_counted_as_the_supernet_and_its_optimiser_hold_them(pooling: list[list[int]]) -> None:
    kwargs = architecture_kwargs(pooling, "S")
    supernet = sum(p.numel() for p in SliceMambaSupernet(3, 2, **kwargs).parameters())
    network = sum(p.numel() for p in SliceMambaUNet(3, 2, **kwargs).parameters())
    model = MemoryModel()
    expected = model.weight * supernet + model.gradient * network + model.workspace + model.context
    assert static_bytes(3, 2, kwargs) == expected
    expected = (model.weight + model.gradient) * network + model.workspace + model.context
    assert static_bytes(3, 2, kwargs, supernet=False) == expected
