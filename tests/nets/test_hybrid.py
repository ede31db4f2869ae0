"""A convolutional stem and other skips: shapes, sizes, gradients, refusals; without them nothing has changed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks

from nnunetv2_slicemamba.nets import SliceMambaSupernet, SliceMambaUNet
from nnunetv2_slicemamba.nets.resolutions import output_scales, stem_strides

GOLDEN = Path(__file__).parents[1] / "golden" / "without_extras.json"
STEM = {"stem_features": [6, 10]}
OPTIONS = [STEM, {"stem_features": [6]}, {**STEM, "skip": "concatenate"}, {"skip": "concatenate"}]
OPTIONS += [{"embedding_skip": True}, {**STEM, "n_conv_per_stem_stage": 1}]
Settings = Callable[..., dict[str, Any]]


def image(n_dims: int) -> torch.Tensor:
    sizes = (33, 40) if n_dims == 2 else (5, 33, 40)
    return torch.linspace(-1, 1, 2 * math.prod(sizes)).sin().reshape(1, 2, *sizes)


@torch.no_grad()
@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("kind", [SliceMambaUNet, SliceMambaSupernet])
@pytest.mark.parametrize("n_dims", [2, 3])
def test_without_the_options_names_seeded_weights_and_outputs_are_those_from_before_there_were_any(
    n_dims: int, kind: type[Any], deep_supervision: bool, settings: Settings
) -> None:
    expected = json.loads(GOLDEN.read_text())[f"{n_dims}d {kind.__name__}"]
    torch.manual_seed(7)
    network = kind(**settings(n_dims, deep_supervision=deep_supervision)).eval()
    shapes = json.dumps([[name, list(value.shape)] for name, value in network.state_dict().items()])
    assert hashlib.sha256(shapes.encode()).hexdigest() == expected["names_and_shapes_sha256"]
    outputs = network(image(n_dims))
    outputs = outputs if deep_supervision else [outputs]
    for output, numbers in zip(outputs, expected["outputs"], strict=deep_supervision):
        flat = output.double().flatten()
        found = [flat.square().sum().item(), *flat[:: len(flat) // 3][:3].tolist()]
        assert found == pytest.approx(numbers, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("size", [(16, 8), (33, 20), (3, 5), (1, 1), (3, 5, 4), (8, 33, 20)], ids=str)
def test_any_size_gives_finite_logits_and_gradients_of_every_parameter(
    size: tuple[int, ...], options: dict[str, Any], settings: Settings
) -> None:
    network = SliceMambaUNet(**settings(len(size), **options))
    logits = network(torch.randn(2, 2, *size))
    assert logits.shape == (2, 3, *size)
    logits.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("n_dims", [2, 3])
def test_gradient_reaches_stem_skips_and_all_else(n_dims: int, options: dict[str, Any], settings: Settings) -> None:
    network = SliceMambaUNet(**settings(n_dims, deep_supervision=True, **options))
    sum(output.square().mean() for output in network(image(n_dims))).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # InstanceNorm takes a bias before it away: its gradient is rounding
    assert [name for name in without if not (".stem." in name and name.endswith(".conv.bias"))] == []


@pytest.mark.parametrize(
    ("n_dims", "strides", "expected"),
    [
        (2, [[4, 4], [2, 2], [2, 1]], [(64, 48), (32, 24), (16, 12), (8, 6)]),
        (3, [[1, 4, 4], [2, 2, 2], [1, 2, 2]], [(8, 64, 48), (8, 32, 24), (8, 16, 12), (4, 8, 6)]),
        (3, [[2, 4, 4], [2, 2, 2], [1, 2, 2]], [(8, 64, 48), (8, 32, 24), (4, 16, 12), (2, 8, 6)]),
        (2, [[6, 4], [2, 2], [1, 1]], [(60, 48), (30, 24), (10, 12), (5, 6)]),
    ],
)
def test_outputs_come_at_full_and_half_resolution_and_at_those_of_the_s3_stages(
    n_dims: int, strides: list[list[int]], expected: list[tuple[int, ...]], settings: Settings
) -> None:
    network = SliceMambaUNet(**settings(n_dims, strides=strides, deep_supervision=True, **STEM)).eval()
    x = torch.randn(1, 2, *expected[0])
    outputs = network(x)
    assert [tuple(output.shape) for output in outputs] == [(1, 3, *size) for size in expected]
    scaled = [tuple(s * f for s, f in zip(expected[0], scale, strict=True)) for scale in network.output_scales]
    assert scaled == pytest.approx(expected)
    network.decoder.deep_supervision = False
    assert torch.equal(network(x), outputs[0])


def test_the_first_stage_works_at_full_resolution_by_nnunets_blocks(settings: Settings) -> None:
    network = SliceMambaUNet(**settings(**STEM))
    tokens, skips = network.encoder.embed(torch.randn(1, 2, 32, 48))
    assert [tuple(skip.shape) for skip in skips] == [(1, 6, 32, 48), (1, 10, 16, 24)]
    assert tokens.shape == (1, 8, 12, 8)
    stages = [*network.encoder.stem.stages, *network.decoder.stem.stages]
    assert all(isinstance(stage, StackedConvBlocks) for stage in stages)
    assert [len(stage.convs) for stage in stages] == [2] * 4
    assert [layer.in_channels for layer in network.decoder.seg_layers] == [16, 8, 10, 6]


@torch.no_grad()
def test_detail_finer_than_a_token_reaches_the_logits_through_the_stem_alone(settings: Settings) -> None:
    """A pattern that every patch of 4 x 4 has alike is one number to the paper's network, and an image to a hybrid."""
    pattern = torch.zeros(1, 2, 32, 32)
    pattern[..., ::2, :] = 1
    network = SliceMambaUNet(**settings(**STEM)).eval()
    for _, block in network.named_block_positions():
        block.bss.out_proj.weight.zero_()
    network.decoder.stem.upsamples[0].weight.zero_()
    logits = network(pattern)
    assert (logits[..., 8:24:2, 8:24] - logits[..., 9:25:2, 8:24]).abs().min() > 1e-3


def test_concatenated_skips_can_do_what_added_ones_do_and_more(settings: Settings) -> None:
    added = SliceMambaUNet(**settings()).eval()
    network = SliceMambaUNet(**settings(skip="concatenate")).eval()
    missing, unexpected = network.load_state_dict(added.state_dict(), strict=False)
    assert unexpected == []
    assert sorted(missing) == ["decoder.stages.1.fuse.weight", "decoder.stages.2.fuse.weight"]
    x = image(2)
    with torch.no_grad():
        assert not torch.allclose(network(x), added(x))
        for stage in network.decoder.stages[1:]:
            one = torch.eye(stage.fuse.out_features)
            stage.fuse.weight.copy_(torch.cat([one, one], dim=1))
        torch.testing.assert_close(network(x), added(x))


@torch.no_grad()
def test_the_embedding_skip_adds_the_tokens_of_the_image_before_the_final_mapping(settings: Settings) -> None:
    plain, skipping = (SliceMambaUNet(**settings(embedding_skip=on)).eval() for on in (False, True))
    skipping.load_state_dict(plain.state_dict())
    x = torch.randn(1, 2, 32, 48)
    seen = []
    plain.decoder.final_mapping.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    skipping.decoder.final_mapping.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    assert not torch.equal(plain(x), skipping(x))
    torch.testing.assert_close(seen[1], seen[0] + plain.encoder.patch_embedding(x))


@torch.no_grad()
@pytest.mark.parametrize("share_weights", [False, True])
@pytest.mark.parametrize("options", [{**STEM, "skip": "concatenate"}, {"embedding_skip": True}], ids=str)
def test_a_path_of_the_supernet_is_extracted_with_the_stem(
    options: dict[str, Any], share_weights: bool, settings: Settings
) -> None:
    supernet = SliceMambaSupernet(**settings(deep_supervision=True, share_weights=share_weights, **options)).eval()
    path = supernet.sample_architecture(torch.Generator().manual_seed(3))
    outputs, extracted = supernet(image(2)), supernet.extract(path)(image(2))
    assert all(torch.equal(one, other) for one, other in zip(outputs, extracted, strict=True))


def test_only_s3_blocks_have_candidates(settings: Settings) -> None:
    plain, hybrid = (SliceMambaSupernet(**settings(**options)) for options in ({}, STEM))
    assert [name for name, _ in hybrid.named_block_positions()] == [name for name, _ in plain.named_block_positions()]
    final = sum(p.numel() for name, p in SliceMambaUNet(**settings(**STEM)).named_parameters() if ".stem." in name)
    assert sum(p.numel() for name, p in hybrid.named_parameters() if ".stem." in name) == final > 0


@pytest.mark.parametrize(
    ("total", "n", "steps"),
    [
        ((4, 4), 2, [(2, 2), (2, 2)]),
        ((4, 4), 1, [(4, 4)]),
        ((1, 4, 4), 2, [(1, 2, 2), (1, 2, 2)]),
        ((2, 4, 4), 2, [(1, 2, 2), (2, 2, 2)]),
        ((8, 6), 2, [(2, 2), (4, 3)]),
        ((8, 4, 1), 3, [(2, 1, 1), (2, 2, 1), (2, 2, 1)]),
        ((1, 1), 1, [(1, 1)]),
    ],
)
def test_steps_multiply_to_the_total_stride_on_every_axis(
    total: tuple[int, ...], n: int, steps: list[tuple[int, ...]]
) -> None:
    assert stem_strides(total, n) == steps
    assert tuple(math.prod(axis) for axis in zip(*steps, strict=True)) == total
    assert output_scales([total, (2,) * len(total)], n)[-1] == [1 / size for size in total]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem_features": [4, 6, 8]}, r"3 entries, but strides\[0\] \[4, 4\] can be reached in 2 steps at most"),
        ({"stem_features": [4, 0]}, r"stem_features \[4, 0\] must all be at least 1"),
        ({**STEM, "n_conv_per_stem_stage": 0}, "n_conv_per_stem_stage is 0"),
        ({"skip": "multiply"}, "skip is 'multiply'; give one of add, concatenate"),
        ({**STEM, "embedding_skip": True}, "give one of the two"),
    ],
)
@pytest.mark.parametrize("kind", [SliceMambaUNet, SliceMambaSupernet])
def test_options_that_cannot_be_are_refused_by_name(
    kind: type[Any], changes: dict[str, Any], message: str, settings: Settings
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**settings(**changes))


def test_nnunets_adaptation_of_the_input_finds_the_stem(settings: Settings) -> None:
    for options in ({}, STEM):
        network = SliceMambaUNet(**settings(**options))
        names = dict(network.named_modules(remove_duplicate=False))
        assert network.key_to_stem in names
        assert all(names[name].in_channels == 2 for name in network.keys_to_in_proj)
