"""Weights of hybrids: a network without a stem gives the S3 stages, another hybrid everything."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.nets import SliceMambaSupernet
from nnunetv2_slicemamba.pretraining.classifier import SliceMambaClassifier
from tests.pretraining.imported import DEEP, error, imported_into
from tests.pretraining.published_networks import SETTINGS, SLICING, outputs, published, random_network

STEM = {"stem_features": [6, 10]}
IN_PLACE = "this network has a convolutional stem in its place"


def stem_of(network: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items() if ".stem." in name}


@pytest.mark.parametrize("own", [False, True])
def test_a_hybrid_takes_the_s3_stages_of_a_network_without_a_stem_and_keeps_its_own_stem(own: bool) -> None:
    given, ours = random_network(), random_network(seed=1, **STEM)
    before = stem_of(ours)
    heads = [layer.weight.clone() for layer in ours.decoder.seg_layers[1:]]
    result = imported_into(ours, dict(given.state_dict()) if own else published(given))
    replaced = ("patch_embedding.", "patch_embed.", "final_mapping.", "final_up.", "seg_layers.1.", "final_conv.")
    skipped = {name for name in (given.state_dict() if own else published(given)) if any(r in name for r in replaced)}
    assert result.skipped == dict.fromkeys(skipped, IN_PLACE)
    assert all(torch.equal(value, before[name]) for name, value in stem_of(ours).items())
    assert set(before) <= set(result.initialised)
    assert all(torch.equal(new.weight, old) for new, old in zip(ours.decoder.seg_layers[1:], heads, strict=True))
    for (name, one), (_, other) in zip(given.named_block_positions(), ours.named_block_positions(), strict=True):
        for part, value in one.state_dict().items():
            assert torch.equal(other.state_dict()[part], value), (name, part)


def test_a_hybrids_weights_are_refused_by_a_network_without_a_stem() -> None:
    with pytest.raises(InputError, match="the checkpoint is of a hybrid.*plans of 'slicemamba plan --hybrid'"):
        imported_into(random_network(), dict(random_network(**STEM).state_dict()))


@torch.no_grad()
def test_a_hybrids_weights_are_taken_by_another_hybrid_with_fewer_channels_and_every_candidate() -> None:
    given, ours = random_network(**STEM).double(), random_network(seed=1, input_channels=1, **STEM).double()
    result = imported_into(ours, dict(given.state_dict()))
    image = torch.linspace(-2, 3, 24 * 32, dtype=torch.float64).view(1, 1, 24, 32).cos_()
    assert error(ours(image), given(image.repeat(1, 3, 1, 1))) < 1e-12
    assert {entry.ours for entry in result.entries if entry.changes} == {
        f"encoder.stem.stages.0.convs.0.{name}.weight" for name in ("conv", "all_modules.0")
    }
    supernet = random_network(SliceMambaSupernet, seed=2, **STEM).double()
    imported_into(supernet, dict(given.state_dict()))
    assert torch.equal(outputs(supernet), outputs(given))


@pytest.mark.parametrize("kernels", ["mean", "center"])
@torch.no_grad()
def test_a_stem_does_on_a_volume_of_equal_slices_what_it_did_on_one(kernels: str) -> None:
    """Away from the first and last slices, at which convolutions see zeros."""
    flat, deep = random_network(**STEM), random_network(seed=5, **DEEP, **STEM)
    imported_into(deep, dict(flat.state_dict()), inflation=kernels)
    if kernels == "mean":
        for module in deep.modules():
            # these see the zeros through their statistics
            if isinstance(module, torch.nn.InstanceNorm3d):
                module.forward = lambda x: x  # type: ignore[method-assign]
        for module in flat.modules():
            if isinstance(module, torch.nn.InstanceNorm2d):
                module.forward = lambda x: x  # type: ignore[method-assign]
    x = torch.linspace(-1, 1, 3 * 24 * 32).view(1, 3, 24, 32).sin_()
    volume = x.unsqueeze(2).repeat(1, 1, 32, 1, 1)
    (tokens, skips), (expected, expected_skips) = deep.encoder.embed(volume), flat.encoder.embed(x)
    middle = tokens.shape[1] // 2
    assert error(tokens[:, middle], expected) < 1e-4
    for found, wanted in zip(skips, expected_skips, strict=True):
        assert error(found[:, :, 16], wanted) < 1e-4
    made, wanted_made = (n.decoder.stem(t, s) for n, t, s in ((deep, tokens, skips), (flat, expected, expected_skips)))
    for found, wanted in zip(made, wanted_made, strict=True):
        assert error(found[:, :, found.shape[2] // 2], wanted) < 1e-4


@torch.no_grad()
def test_widths_of_a_hybrid_are_selected_where_channels_lie_side_by_side() -> None:
    """Channels of the stage below and of the skip: of each, evenly spaced ones."""
    given, ours = random_network(stem_features=[8, 16]), random_network(seed=1, stem_features=[4, 8])
    imported_into(ours, dict(given.state_dict()), select_widths=True)
    mixed = "decoder.stem.stages.0.convs.0.conv.weight"
    wide, narrow = given.state_dict()[mixed], ours.state_dict()[mixed]
    assert torch.equal(narrow, wide[::2, ::2])
    assert narrow.shape == (8, 16, 3, 3)


def test_a_hybrids_pretrained_encoder_is_imported_with_its_stem() -> None:
    """The classifier that pretraining makes of a hybrid's plans; the decoder's convolutions start untrained."""
    ours = random_network(seed=1, input_channels=1, **STEM)
    before = stem_of(ours)
    arch_kwargs = {k: v for k, v in (SETTINGS | STEM).items() if k not in ("input_channels", "num_classes")}
    trained = SliceMambaClassifier(10, arch_kwargs, SLICING, drop_path=0.0)
    assert trained(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    result = imported_into(ours, dict(trained.state_dict()))
    after, given = stem_of(ours), trained.state_dict()
    assert torch.equal(after["encoder.stem.embedding.proj.weight"], given["encoder.stem.embedding.proj.weight"])
    kernel = "encoder.stem.stages.0.convs.0.conv.weight"
    assert torch.allclose(after[kernel], given[kernel].sum(1, keepdim=True))
    decoder = [name for name in after if name.startswith("decoder.")]
    assert all(torch.equal(after[name], before[name]) for name in decoder)
    assert set(decoder) <= set(result.initialised)
