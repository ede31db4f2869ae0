"""Published checkpoints load into our networks and compute what they computed; what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nnunetv2_slicemamba.nets import SliceMambaSupernet, SliceMambaUNet
from nnunetv2_slicemamba.pretraining import published_state_dict
from tests.pretraining.published_networks import SLICING, as_vmunet, outputs, published, random_network


@pytest.mark.parametrize("prefix", ["", "smunet.", "module.", "module.smunet.", "smunet.module."])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"model": weights, "epoch": 3},
        lambda weights: {"model_state_dict": weights, "optimizer_state_dict": {}},
    ],
    ids=["bare", "model", "model_state_dict"],
)
def test_a_published_network_computes_the_same_however_it_was_wrapped(prefix: str, wrap: Callable[..., Any]) -> None:
    original, ours = random_network(slicing=SLICING), random_network(seed=1, slicing=SLICING)
    ours.load_state_dict(published_state_dict(wrap(published(original, prefix)), ours))
    assert torch.equal(outputs(ours), outputs(original))
    # the publication keeps the slicing elsewhere
    assert ours.get_slicing() == tuple(SLICING)


def test_a_published_supernet_gives_a_supernet_with_the_same_paths() -> None:
    original, ours = random_network(SliceMambaSupernet), random_network(SliceMambaSupernet, seed=1)
    weights = published(original, "smunet.")
    assert "smunet.layers.1.blocks.0.3.self_attention.conv2d.weight" in weights
    ours.load_state_dict(published_state_dict(weights, ours))
    for path in ((0, 1, 2, 3, 0), (3, 2, 1, 0, 3)):
        for network in (original, ours):
            network.set_architecture(path)
        assert torch.equal(outputs(ours), outputs(original))


@pytest.mark.parametrize(("prefix", "source"), [("vmunet.", None), ("module.vmunet.", None), ("", "vmunet")])
def test_vmunets_weights_compute_the_same_with_its_directions_and_its_thickness(prefix: str, source: Any) -> None:
    original, ours = random_network(slicing=[(1, 1)] * 5), random_network(seed=1, slicing=SLICING)
    weights = as_vmunet(published(original, prefix))
    ours.load_state_dict(published_state_dict(weights, ours, source))
    assert ours.get_slicing() == ((1, 1),) * 5
    assert torch.equal(outputs(ours), outputs(original))


def test_the_given_source_overrides_the_prefix() -> None:
    original, ours = random_network(slicing=SLICING), random_network(seed=1, slicing=SLICING)
    ours.load_state_dict(published_state_dict(published(original, "vmunet."), ours, "slicemamba"))
    assert torch.equal(outputs(ours), outputs(original))
    # and the order of directions is no detail
    ours.load_state_dict(published_state_dict(published(original), ours, "vmunet"))
    ours.set_slicing(SLICING)
    assert (outputs(ours) - outputs(original)).norm() > 0.01 * outputs(original).norm()


def test_neither_the_network_nor_the_checkpoint_is_changed() -> None:
    original, ours = random_network(), random_network(seed=1, slicing=SLICING)
    weights, before = as_vmunet(published(original)), outputs(ours)
    given = {name: value.clone() for name, value in weights.items()}
    published_state_dict(weights, ours, "vmunet")
    assert torch.equal(outputs(ours), before)
    assert all(torch.equal(value, given[name]) for name, value in weights.items())


def test_half_precision_weights_are_given_in_the_networks_type() -> None:
    ours = random_network()
    halved = {name: value.half() for name, value in published(random_network(seed=1)).items()}
    result = published_state_dict(halved, ours)
    assert {name: value.dtype for name, value in result.items()} == {n: v.dtype for n, v in ours.state_dict().items()}


@pytest.mark.parametrize("source", ["slicemamba", "vmunet"])
def test_everything_that_does_not_fit_is_listed_at_once(source: Any) -> None:
    ours = random_network()
    weights = published(ours)
    del weights["final_conv.bias"], weights["layers.0.blocks.0.ln_1.weight"]
    weights["head.weight"] = torch.zeros(3)
    weights["layers.7.blocks.0.ln_1.weight"] = torch.zeros(8)
    weights["layers.1.blocks.0.self_attention.A_logs"] = torch.zeros(7, 4)
    weights["patch_embed.proj.weight"] = torch.zeros(8, 1, 4, 4)
    with pytest.raises(ValueError, match=f"the {source} checkpoint does not fit this network, 6 weights") as caught:
        published_state_dict(weights, ours, source)
    assert sorted(line.strip() for line in str(caught.value).splitlines()[1:]) == [
        "decoder.seg_layers.1.bias: missing in the checkpoint",
        "encoder.stages.0.blocks.0.norm.weight: missing in the checkpoint",
        "head.weight: unknown to this network",
        "layers.1.blocks.0.self_attention.A_logs: shape (7, 4), this network needs (128, 4)",
        "layers.7.blocks.0.ln_1.weight: unknown to this network",
        "patch_embed.proj.weight: shape (8, 1, 4, 4), this network needs (8, 3, 4, 4)",
    ]


@pytest.mark.parametrize(("of", "into"), [(SliceMambaUNet, SliceMambaSupernet), (SliceMambaSupernet, SliceMambaUNet)])
def test_a_networks_weights_are_refused_for_a_supernet_and_the_other_way_round(of: type, into: type) -> None:
    with pytest.raises(ValueError, match="does not fit this network"):
        published_state_dict(published(random_network(of)), random_network(into))


def test_a_file_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="missing in the checkpoint"):
        published_state_dict({"epoch": 3, "model": {}}, random_network())


def test_an_unknown_source_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="source is 'swin'"):
        published_state_dict({}, random_network(), "swin")  # type: ignore[arg-type]
