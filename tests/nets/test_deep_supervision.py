"""Deep supervision gives one output per resolution, and changes nothing about the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nnunetv2_slicemamba.nets import SliceMambaUNet

SIZES = {2: (64, 48), 3: (8, 32, 48)}


@pytest.mark.parametrize(
    ("n_dims", "expected"),
    [
        (2, [(64, 48), (16, 12), (8, 6)]),
        (3, [(8, 32, 48), (8, 8, 12), (4, 4, 6)]),
    ],
)
def test_outputs_come_at_full_resolution_and_at_every_stage_but_the_lowest(
    n_dims: int, expected: list[tuple[int, ...]], settings: Callable[..., dict[str, Any]]
) -> None:
    network = SliceMambaUNet(**settings(n_dims, deep_supervision=True))
    outputs = network(torch.randn(1, 2, *SIZES[n_dims]))
    assert [tuple(output.shape) for output in outputs] == [(1, 3, *size) for size in expected]
    scaled = [tuple(s * f for s, f in zip(SIZES[n_dims], scale, strict=True)) for scale in network.output_scales]
    assert scaled == expected


@torch.no_grad()
@pytest.mark.parametrize("n_dims", [2, 3])
def test_weights_load_with_and_without_deep_supervision_and_give_the_same_prediction(
    n_dims: int, settings: Callable[..., dict[str, Any]]
) -> None:
    x = torch.randn(1, 2, *SIZES[n_dims])
    supervised, plain = (SliceMambaUNet(**settings(n_dims, deep_supervision=on)).eval() for on in (True, False))
    plain.load_state_dict(supervised.state_dict())
    assert torch.equal(plain(x), supervised(x)[0])
    supervised.load_state_dict(SliceMambaUNet(**settings(n_dims)).state_dict())


@torch.no_grad()
def test_it_can_be_switched_on_a_built_network_as_nnunet_does(settings: Callable[..., dict[str, Any]]) -> None:
    network = SliceMambaUNet(**settings(deep_supervision=True)).eval()
    x = torch.randn(1, 2, 32, 32)
    outputs = network(x)
    network.decoder.deep_supervision = False
    assert torch.equal(network(x), outputs[0])


def test_heads_that_are_never_used_need_no_gradient(settings: Callable[..., dict[str, Any]]) -> None:
    plain, supervised = (SliceMambaUNet(**settings(deep_supervision=on)) for on in (False, True))
    assert [layer.weight.requires_grad for layer in plain.decoder.seg_layers] == [False, False, True]
    assert all(parameter.requires_grad for parameter in supervised.parameters())
    # or DDP waits for them
    plain(torch.randn(1, 2, 32, 32)).mean().backward()
    assert all(p.grad is not None for p in plain.parameters() if p.requires_grad)


def test_nothing_but_the_heads_has_the_name_that_nnunet_skips_in_pretrained_weights(
    settings: Callable[..., dict[str, Any]],
) -> None:
    network = SliceMambaUNet(**settings(num_classes=3))
    other = SliceMambaUNet(**settings(num_classes=5)).state_dict()
    differing = [name for name, value in network.state_dict().items() if value.shape != other[name].shape]
    assert differing
    assert all(".seg_layers." in name for name in differing)
