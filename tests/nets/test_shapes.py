"""Networks of any shape take images of any size, in 2D and 3D, and train all of their parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from nnunetv2_slicemamba.nets import BSS, S3Block, SliceMambaSupernet, SliceMambaUNet

SIZES = [(32, 32), (1, 1), (3, 5), (16, 8), (33, 20), (17, 41), (2, 2, 2), (3, 5, 4), (8, 33, 20), (2, 16, 31)]
SHAPES: list[dict[str, Any]] = [
    {"n_stages": 1, "strides": [[4, 4]]},
    {"n_stages": 1, "strides": [[1, 1]]},
    {"n_stages": 2, "strides": [[4, 4], [2, 2]]},
    {"n_stages": 2, "strides": [[2, 4], [1, 2]]},
    {"n_stages": 1, "strides": [[4, 4, 4]]},
    {"n_stages": 2, "strides": [[1, 4, 4], [2, 2, 2]]},
    {"n_stages": 4, "strides": [[1, 4, 4], [1, 2, 2], [2, 2, 2], [2, 1, 1]]},
]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_size_gives_finite_logits_of_that_size_and_gradients(
    size: tuple[int, ...], settings: Callable[..., dict[str, Any]]
) -> None:
    network = SliceMambaUNet(**settings(len(size)))
    logits = network(torch.randn(2, 2, *size))
    assert logits.shape == (2, 3, *size)
    assert logits.isfinite().all()
    logits.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("size", [(33, 40), (6, 33, 40)], ids=str)
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_gradient_reaches_every_parameter_that_requires_one(
    size: tuple[int, ...], deep_supervision: bool, settings: Callable[..., dict[str, Any]]
) -> None:
    network = SliceMambaUNet(**settings(len(size), deep_supervision=deep_supervision))
    outputs = network(torch.randn(2, 2, *size))
    outputs = outputs if deep_supervision else [outputs]
    sum(output.square().mean() for output in outputs).backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(shape["strides"]))
def test_networks_of_one_to_four_stages_and_any_stride_train_and_predict(
    shape: dict[str, Any], settings: Callable[..., dict[str, Any]]
) -> None:
    n, n_dims = shape["n_stages"], len(shape["strides"][0])
    widths = {"features_per_stage": [8 * 2**i for i in range(n)]}
    blocks = {"n_blocks_per_stage": [1] * n, "n_blocks_per_stage_decoder": [1] * n}
    network = SliceMambaUNet(**settings(n_dims, **shape, **widths, **blocks, deep_supervision=True))
    size = (9, 18, 21)[-n_dims:]
    outputs = network(torch.randn(1, 2, *size))
    assert len(outputs) == n
    assert outputs[0].shape == (1, 3, *size)
    sum(output.square().mean() for output in outputs).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@torch.no_grad()
@pytest.mark.parametrize("size", [(30, 19), (3, 30, 19)], ids=str)
def test_an_odd_size_is_padded_at_its_end_and_cropped_again(
    size: tuple[int, ...], settings: Callable[..., dict[str, Any]]
) -> None:
    network = SliceMambaUNet(**settings(len(size))).eval()
    x = torch.randn(1, 2, *size)
    stride = [math.prod(axis) for axis in zip(*settings(len(size))["strides"], strict=True)]
    by_hand = F.pad(x, [v for i in reversed(range(len(size))) for v in (0, -size[i] % stride[i])])
    cropped = network(by_hand)[(..., *(slice(s) for s in size))]
    torch.testing.assert_close(network(x), cropped, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "thickness"), [((5, 7), (2, 4)), ((1, 9), (3, 1)), ((3, 5, 4), (2, 4, 2))])
@pytest.mark.parametrize("kind", [BSS, S3Block])
def test_blocks_keep_the_shape_of_any_image(
    kind: type[torch.nn.Module], size: tuple[int, ...], thickness: tuple[int, ...]
) -> None:
    block = kind(8, len(size), thickness, 4)
    x = torch.randn(2, *size, 8, requires_grad=True)
    y = block(x)
    assert y.shape == x.shape
    y.square().mean().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_stages": 4}, "features_per_stage has 3 entries, but n_stages is 4"),
        ({"n_blocks_per_stage_decoder": [1, 1]}, "n_blocks_per_stage_decoder has 2 entries, but n_stages is 3"),
        ({"strides": [[4, 4], [2, 2], [2, 2, 2]]}, "must have 2 or 3 entries per stage"),
        ({"strides": [[4, 4], [2, 0], [2, 2]]}, "must all be at least 1"),
        ({"n_blocks_per_stage": [1, 0, 1]}, r"n_blocks_per_stage \[1, 0, 1\] must all be at least 1"),
        ({"features_per_stage": [10, 20, 40]}, "needs a multiple of 4"),
        ({"features_per_stage": [16, 8, 8]}, "must not shrink"),
    ],
)
@pytest.mark.parametrize("kind", [SliceMambaUNet, SliceMambaSupernet])
def test_settings_that_contradict_each_other_are_refused_by_name(
    kind: type[torch.nn.Module], changes: dict[str, Any], message: str, settings: Callable[..., dict[str, Any]]
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**settings(**changes))


@pytest.mark.parametrize("arguments", [{"n_dims": 1}, {"n_dims": 4}, {"d_state": 0}, {"thickness": (2, 2, 2)}])
def test_bss_refuses_settings_that_make_no_block(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"n_dims|at least 1|spatial axes"):
        BSS(8, **arguments)


def test_stochastic_depth_rises_over_the_encoder_and_falls_over_the_decoder(
    settings: Callable[..., dict[str, Any]],
) -> None:
    network = SliceMambaUNet(**settings(drop_path_rate=0.3))
    rates = [block.drop_path.drop_prob for block in network.block_positions()]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.3, 0.2, 0.1, 0])
