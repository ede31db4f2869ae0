"""Imported weights compute what they computed where they come from; what cannot is refused, all of it at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.nets import SliceMambaSupernet, SliceMambaUNet
from nnunetv2_slicemamba.pretraining.fitting import adapt_input_channels
from nnunetv2_slicemamba.pretraining.importing import import_weights
from nnunetv2_slicemamba.pretraining.naming import identify
from tests.pretraining.imported import DEEP, error, imported_into
from tests.pretraining.plain_vmamba import encode, vmunet
from tests.pretraining.published_networks import SETTINGS, SLICING, as_vmunet, outputs, published, random_network

GOLDEN = Path(__file__).parents[1] / "golden"


def golden(name: str) -> dict[str, Any]:
    with np.load(GOLDEN / name) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def paper_network(kind: type, data: dict[str, Any]) -> Any:
    return kind(3, 2, 4, data["dims"].tolist(), [[4, 4], [2, 2], [2, 2], [2, 2]], [2, 2, 9, 2], [2, 2, 2, 1],
                d_state=int(data["d_state"])).eval()  # fmt: skip


def parameters(data: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    return {prefix + n.removeprefix("param/"): v for n, v in data.items() if n.startswith("param/")}


@torch.no_grad()
def test_an_imported_network_gives_the_published_outputs() -> None:
    data = golden("network.npz")
    network = paper_network(SliceMambaUNet, data)
    result = imported_into(network, parameters(data, "module.smunet."))
    network.set_slicing([[(2, 2), (2, 4), (4, 2), (4, 4)][i] for i in data["architecture"]])
    assert error(network(data["x"]), data["y"]) < 1e-5
    assert len(result.entries) == len(parameters(data, ""))
    # what nothing was imported for: the heads of deep supervision
    assert {name.rpartition(".")[0] for name in result.initialised} == {f"decoder.seg_layers.{i}" for i in range(3)}


@torch.no_grad()
def test_an_imported_supernet_gives_the_published_outputs_of_every_path() -> None:
    data = golden("supernet.npz")
    checkpoint = identify({"model": parameters(data, "smunet.")})
    assert checkpoint.supernet
    supernet = paper_network(SliceMambaSupernet, data)
    supernet.load_state_dict(import_weights(checkpoint, supernet).state_dict)
    for i in range(2):
        supernet.set_architecture(data[f"architecture_{i}"].tolist())
        assert error(supernet(data["x"]), data[f"y_{i}"]) < 1e-5


def test_vmunet_computes_what_its_own_definition_says() -> None:
    weights = as_vmunet(published(random_network().double(), ""))
    ours = random_network(seed=1).double()
    imported_into(ours, {"vmunet." + name: value for name, value in weights.items()})
    ours.set_slicing([(1, 1)] * 5)
    x = torch.linspace(-1, 1, 3 * 24 * 32).view(1, 3, 24, 32).sin_().double()
    assert error(outputs(ours), vmunet(x, weights, 2)) < 1e-12
    # its directions are no detail
    imported_into(ours, weights, "slicemamba")
    ours.set_slicing([(1, 1)] * 5)
    assert error(outputs(ours), vmunet(x, weights, 2)) > 1e-2


def classifier(network: Any, later_names: bool = False, blocks: int = 2) -> dict[str, Tensor]:
    """The network's encoder under VMamba's names, with a head; its last stage has `blocks` blocks."""
    encoder = as_vmunet({n: v for n, v in published(network).items() if n.startswith(("layers.", "patch_embed."))})
    for name in [n for n in encoder if n.startswith("layers.1.blocks.1.")]:
        for extra in range(2, blocks):
            encoder[name.replace("blocks.1.", f"blocks.{extra}.")] = encoder[name] + extra
    head = {"norm.weight": torch.ones(16), "head.weight": torch.zeros(1000, 16), "head.bias": torch.zeros(1000)}
    if later_names:
        changed = {"patch_embed.proj": "patch_embed.0", "patch_embed.norm": "patch_embed.2", "ln_1": "norm"}
        changed |= {"self_attention": "op"}
        for old, new in changed.items():
            encoder = {name.replace(old, new): value for name, value in encoder.items()}
        head = {f"classifier.{name}": value for name, value in head.items()}
    return encoder | head


@torch.no_grad()
@pytest.mark.parametrize("later_names", [False, True])
def test_a_vmamba_classifier_gives_the_encoder_that_computes_as_it_did_and_mirrors_it(later_names: bool) -> None:
    given = classifier(random_network())
    ours = random_network(seed=1)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    result = imported_into(ours, {"model": classifier(random_network(), later_names, blocks=4), "epoch": 9})
    ours.set_slicing([(1, 1)] * 5)
    x = torch.linspace(-1, 1, 3 * 24 * 32).view(1, 3, 24, 32).sin_()
    features, _ = ours.encoder(x)
    assert error(features, encode(x, given, 2)[0]) < 1e-5

    after = ours.state_dict()
    for name in (n for n in after if n.startswith("decoder.")):
        words = name.split(".")
        if words[1] == "stages" and words[3] == "blocks":
            mirrored = ".".join(["encoder.stages", str(1 - int(words[2])), *words[3:]])
            assert torch.equal(after[name], after[mirrored]), name
        else:
            assert torch.equal(after[name], before[name]), name
            assert name in result.initialised
    reasons = set(result.skipped.values())
    assert len(reasons) == 2, reasons
    assert sum("fewer blocks" in why for why in result.skipped.values()) == 2 * 13
    assert sum("head" in why for why in result.skipped.values()) == 3


def test_a_classifier_goes_into_every_candidate_of_a_supernet() -> None:
    single, supernet = random_network(seed=1), random_network(SliceMambaSupernet, seed=2)
    for network in (single, supernet):
        imported_into(network, classifier(random_network()))
    weights, expected = supernet.state_dict(), single.state_dict()
    name = "decoder.stages.0.blocks.0.{}bss.x_proj_weight"
    for candidate in range(4):
        assert torch.equal(weights[name.format(f"{candidate}.")], expected[name.format("")])


MISFITS = {
    "an MLP": lambda w: w.update({"layers.0.blocks.0.mlp.fc1.weight": torch.zeros(32, 8)}),
    "no gate": lambda w: w.update({"layers.0.blocks.0.self_attention.in_proj.weight": torch.zeros(16, 8)}),
    "have no bias": lambda w: [w.pop(n) for n in list(w) if n.endswith("conv2d.bias")],
    "one state per channel": lambda w: w.update({"layers.0.blocks.0.self_attention.A_logs": torch.zeros(64, 1)}),
    "two overlapping convolutions": lambda w: w.update({"patch_embed.5.weight": torch.zeros(8, 4, 3, 3)}),
    "merges patches by a convolution": lambda w: w.update({"layers.0.downsample.1.weight": torch.zeros(16, 8, 3, 3)}),
    "projections are convolutions": lambda w: w.update(
        {"layers.0.blocks.0.self_attention.in_proj.weight": torch.zeros(32, 8, 1, 1)}
    ),
    "its scan has no Ds": lambda w: [w.pop(n) for n in list(w) if n.endswith(".Ds")],
}


@pytest.mark.parametrize("why", MISFITS)
def test_other_versions_of_vmamba_are_refused_with_the_reason_and_the_versions_that_fit(why: str) -> None:
    weights = classifier(random_network())
    MISFITS[why](weights)
    with pytest.raises(InputError, match=why) as caught:
        imported_into(random_network(), weights)
    assert "What fits: VMamba v0" in str(caught.value)


def test_every_mismatch_is_listed_at_once() -> None:
    weights = published(random_network(), "smunet.")
    weights["smunet.patch_embed.proj.weight"] = torch.zeros(8, 7, 4, 4)
    weights["smunet.layers.1.blocks.0.self_attention.A_logs"] = torch.zeros(7, 4)
    weights["smunet.layers.9.blocks.0.ln_1.weight"] = torch.zeros(8)
    del weights["smunet.final_up.norm.bias"]
    with pytest.raises(InputError, match="slicemamba checkpoint does not fit this network, 4 mismatches") as caught:
        imported_into(random_network(), weights)
    for line in (
        "patch_embed.proj.weight: only 3 input channels can be adapted to 3, the checkpoint has 7",
        "layers.1.blocks.0.self_attention.A_logs: shape (7, 4), this network needs (128, 4)",
        "layers.9.blocks.0.ln_1.weight: unknown to this network",
        "decoder.final_mapping.norm.bias: missing in the checkpoint",
    ):
        assert f"\n  {line}" in str(caught.value)


def test_a_network_that_repeats_its_channel_three_times_becomes_one_with_one_channel() -> None:
    published_network = random_network(slicing=SLICING).double()
    ours = random_network(seed=1, slicing=SLICING, input_channels=1).double()
    result = imported_into(ours, published(published_network, "smunet."))
    image = torch.linspace(-2, 3, 24 * 32, dtype=torch.float64).view(1, 1, 24, 32).cos_()
    with torch.no_grad():
        assert error(ours(image), published_network(image.repeat(1, 3, 1, 1))) < 1e-12
    changed = [entry for entry in result.entries if entry.changes]
    assert [(e.ours, e.shape_theirs, e.shape_ours) for e in changed] == [
        ("encoder.patch_embedding.proj.weight", (8, 3, 4, 4), (8, 1, 4, 4))
    ]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7])
def test_input_channels_are_adapted_as_timm_adapts_them(channels: int) -> None:
    timm = pytest.importorskip("timm.models", reason="the convention is timm's; it comes with the extra 'pretrain'")
    weight = torch.randn(8, 3, 4, 4)
    assert torch.allclose(adapt_input_channels(weight, channels), timm.adapt_input_conv(channels, weight.clone()))


def test_a_sigmoid_head_predicts_the_same_as_background_and_foreground() -> None:
    sigmoid = random_network(slicing=SLICING, num_classes=1)
    ours = random_network(seed=1, slicing=SLICING)
    imported_into(ours, published(sigmoid, "smunet."))
    probability = outputs(sigmoid).sigmoid()
    assert 0.1 < probability.mean() < 0.9
    assert torch.allclose(outputs(ours).softmax(1), torch.cat([1 - probability, probability], 1), atol=1e-6)


def test_a_head_for_other_classes_is_skipped_and_everything_else_loaded() -> None:
    ours = random_network(seed=1, num_classes=4)
    head = ours.decoder.seg_layers[1].weight.clone()
    result = imported_into(ours, published(random_network(num_classes=9)))
    assert result.skipped == dict.fromkeys(
        ("final_conv.weight", "final_conv.bias"), "head for 9 classes, this network has 4"
    )
    assert torch.equal(ours.decoder.seg_layers[1].weight, head)


def test_our_own_weights_are_taken_as_they_are_with_their_slicing() -> None:
    original, ours = random_network(slicing=SLICING), random_network(seed=1)
    imported_into(ours, {"network_weights": original.state_dict(), "trainer_name": "SliceMambaTrainer"})
    assert ours.get_slicing() == tuple(SLICING)
    assert torch.equal(outputs(ours), outputs(original))


def wide(seed: int = 0) -> SliceMambaUNet:
    return random_network(seed=seed, features_per_stage=[16, 32])


def test_wider_weights_are_refused_unless_asked_for_and_then_cut_evenly_within_each_part() -> None:
    weights = published(wide(), "smunet.")
    with pytest.raises(InputError, match="--widths select"):
        imported_into(random_network(), weights)
    ours = random_network(seed=1)
    imported_into(ours, weights, select_widths=True)
    theirs, name = wide().state_dict(), "encoder.stages.1.blocks.0.bss."
    found, every_second = ours.state_dict(), slice(None, None, 2)
    # x and gate; dt's rank (2 to 1), B and C; four directions
    halves = theirs[name + "in_proj.weight"].chunk(2)
    assert torch.equal(found[name + "in_proj.weight"], torch.cat([h[every_second] for h in halves])[:, every_second])
    low_rank, states = theirs[name + "x_proj_weight"].split([2, 8], dim=1)
    assert torch.equal(
        found[name + "x_proj_weight"], torch.cat([low_rank[:, every_second], states], 1)[..., every_second]
    )
    per_direction = theirs[name + "A_logs"].view(4, 64, 4)
    assert torch.equal(found[name + "A_logs"], per_direction[:, every_second].reshape(128, 4))
    merged = theirs["encoder.stages.1.downsample.reduction.weight"].view(32, 4, 16)
    assert torch.equal(
        found["encoder.stages.1.downsample.reduction.weight"], merged[::2, :, every_second].reshape(16, 32)
    )
    expanded = theirs["decoder.stages.1.upsample.expand.weight"].view(4, 16, 32)
    assert torch.equal(found["decoder.stages.1.upsample.expand.weight"], expanded[:, every_second, ::2].reshape(32, 16))


def test_a_narrower_network_cannot_fill_a_wider_one() -> None:
    with pytest.raises(InputError, match="nothing wider to select from"):
        imported_into(wide(), published(random_network(), "smunet."), select_widths=True)


FLAT = {"strides": [[1, 4, 4], [1, 2, 2]]}


def volume_network(**changes: Any) -> SliceMambaUNet:
    return random_network(seed=5, **changes)


def test_2d_weights_for_a_3d_network_are_refused_unless_asked_for() -> None:
    with pytest.raises(InputError, match="--inflate mean or center"):
        imported_into(volume_network(**FLAT), published(random_network(), "smunet."))


def test_on_a_single_slice_centered_inflation_computes_what_the_2d_network_does() -> None:
    flat, deep = random_network(slicing=SLICING), volume_network(**FLAT)
    imported_into(deep, published(flat, "smunet."), inflation="center")
    deep.set_slicing([(1, *thickness) for thickness in SLICING])
    x = torch.linspace(-1, 1, 3 * 24 * 32).view(1, 3, 24, 32).sin_()
    with torch.no_grad():
        assert error(deep(x.unsqueeze(2)).squeeze(2), flat(x)) < 1e-5
        # and it is a network that looks along depth: not the same slice by slice
    imported_into(deep, published(flat, "smunet."), inflation="mean")
    with torch.no_grad():
        assert error(deep(x.unsqueeze(2)).squeeze(2), flat(x)) > 1e-3


@pytest.mark.parametrize("kernels", ["mean", "center"])
@torch.no_grad()
def test_what_changes_resolution_does_on_a_volume_of_equal_slices_what_it_did_on_one(kernels: str) -> None:
    flat, deep = random_network(), volume_network(**DEEP)
    imported_into(deep, published(flat, "smunet."), inflation=kernels)
    x = torch.linspace(-1, 1, 3 * 24 * 32).view(1, 3, 24, 32).sin_()
    volume = x.unsqueeze(2).repeat(1, 1, 8, 1, 1)
    tokens, expected = deep.encoder.patch_embedding(volume), flat.encoder.patch_embedding(x)
    assert tokens.shape[1] == 4
    assert error(tokens, expected.unsqueeze(1).expand_as(tokens)) < 1e-5
    merged, expected_merged = (n.encoder.stages[1].downsample(t) for n, t in ((deep, tokens), (flat, expected)))
    assert error(merged, expected_merged.unsqueeze(1).expand_as(merged)) < 1e-5
    expanded, expected = (n.decoder.stages[1].upsample(t) for n, t in ((deep, merged), (flat, expected_merged)))
    assert expanded.shape[1] == 4
    assert error(expanded, expected.unsqueeze(1).expand_as(expanded)) < 1e-5


def test_inflated_weights_train_in_every_part() -> None:
    deep = volume_network(**DEEP)
    imported_into(deep, published(random_network(), "smunet."), inflation="mean")
    deep.train()
    torch.manual_seed(0)
    (deep(torch.randn(1, 3, 8, 24, 32)).square().mean()).backward()
    silent = deep.encoder.stages[0].blocks[0].bss
    gradient = silent.x_proj_weight.grad
    assert gradient is not None
    # the directions along depth start silent and are heard after a step: their C gets a gradient
    assert float(silent.x_proj_weight.detach()[4:, -SETTINGS["d_state"] :].abs().max()) == 0
    assert float(gradient[4:, -SETTINGS["d_state"] :].abs().max()) > 0
