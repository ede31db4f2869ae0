"""The residual network begins as nnU-Net's, and does all that the others do: supernet, slicing, control, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nnunetv2_slicemamba.exporting.formats import FORMATS, quietly
from nnunetv2_slicemamba.nets import SliceMambaResidualSupernet, SliceMambaResidualUNet
from nnunetv2_slicemamba.nets.conv_norm_act import CHANNELS_LAST, concatenate, in_channels_last
from nnunetv2_slicemamba.nets.s3block import S3Block
from tests.nets.residual_networks import SIZES, arguments, image, nnunets, take_weights, wake

BOTH = pytest.mark.parametrize("n_dims", [2, 3])


def outputs(value: Tensor | list[Tensor]) -> list[Tensor]:
    return value if isinstance(value, list) else [value]


@torch.no_grad()
@BOTH
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_it_begins_as_nnunets_network(n_dims: int, deep_supervision: bool) -> None:
    network = SliceMambaResidualUNet(**arguments(n_dims), deep_supervision=deep_supervision)
    network.apply(network.initialize)  # as nnU-Net does after building
    stock = nnunets(n_dims, deep_supervision)
    take_weights(network, stock)
    ours, theirs = outputs(network(image(n_dims))), outputs(stock(image(n_dims)))
    assert len(ours) == (3 if deep_supervision else 1)
    for own, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, expected, atol=1e-4, rtol=1e-4)
    wake(network)
    assert not torch.allclose(outputs(network(image(n_dims)))[0], theirs[0], atol=1e-2)


@BOTH
@pytest.mark.parametrize("options", [{}, {"scan": False}, {"normalise_scan": True}])
def test_every_weight_learns_once_the_blocks_have_left_zero(n_dims: int, options: dict[str, bool]) -> None:
    network = SliceMambaResidualUNet(**arguments(n_dims, **options), deep_supervision=True)

    def backward() -> dict[str, float]:
        network.zero_grad()
        sum(o.square().mean() for o in network(image(n_dims))).backward()
        return {name: float(p.grad.abs().max()) for name, p in network.named_parameters() if p.grad is not None}

    first = backward()
    assert first.keys() == {name for name, _ in network.named_parameters()}
    # the first step moves the projections out of zero, and nothing else of the blocks
    of_blocks = {name for name in first if ".bss." in name or ".blocks." in name}
    assert {name for name in of_blocks if first[name] > 0} == {n for n in of_blocks if n.endswith("out_proj.weight")}
    wake(network)
    assert all(value > 0 for value in backward().values())


@torch.no_grad()
@BOTH
def test_any_size_gives_outputs_at_its_scales(n_dims: int) -> None:
    network = SliceMambaResidualUNet(**arguments(n_dims), deep_supervision=True).eval()
    sizes = tuple(size + 3 for size in SIZES[n_dims])
    made = network(torch.randn(1, 2, *sizes))
    assert [tuple(o.shape[2:]) for o in made] == [
        tuple(max(1, round(size * s)) for size, s in zip(sizes, scale, strict=True)) for scale in network.output_scales
    ]
    assert network.output_scales[0] == [1.0] * n_dims
    network.decoder.deep_supervision = False
    assert torch.equal(network(torch.zeros(1, 2, *sizes)), network(torch.zeros(1, 2, *sizes)))


@BOTH
def test_tokens_are_views_of_the_feature_maps(n_dims: int) -> None:
    network = SliceMambaResidualUNet(**arguments(n_dims))
    seen: list[Tensor] = []
    for module in network.modules():
        if isinstance(module, S3Block):
            module.register_forward_pre_hook(lambda block, inputs: seen.append(inputs[0]))
    for stage in (*network.encoder.stages, *network.decoder.stages):
        stage.register_forward_hook(lambda stage, inputs, made: seen.append(made.movedim(1, -1)))
    network(image(n_dims))
    assert len(seen) == 4 + 7
    assert all(tokens.is_contiguous() for tokens in seen)
    for name, weight in network.named_parameters():
        if name.endswith(("conv.weight", "upsample.weight")) and ".bss." not in name:
            assert weight.is_contiguous(memory_format=CHANNELS_LAST[n_dims + 2]), name


@BOTH
def test_one_input_channel_is_copied_neither_before_nor_behind_the_first_convolution(n_dims: int) -> None:
    network = SliceMambaResidualUNet(**arguments(n_dims, input_channels=1))
    x = image(n_dims)[:, :1].contiguous()
    last = in_channels_last(x)
    assert torch.equal(last, x)
    assert last.data_ptr() == x.data_ptr()
    assert last.stride(1) == 1  # what PyTorch's convolutions go by: such an x lies in both formats
    first = network.encoder.stages[0].convolutions[0].conv
    made = first(last)
    assert made.is_contiguous(memory_format=CHANNELS_LAST[n_dims + 2])
    torch.testing.assert_close(made, first(x))
    gradient, plain = (torch.autograd.grad(first(v).square().sum(), first.weight)[0] for v in (last, x))
    torch.testing.assert_close(gradient, plain)
    assert gradient.stride() == first.weight.stride()  # else several GPUs would copy it


@BOTH
def test_concatenation_is_that_of_the_channels_and_stays_channels_last(n_dims: int) -> None:
    a, b = (in_channels_last(image(n_dims, batch)[:, :channels]) for batch, channels in ((2, 2), (2, 1)))
    a.requires_grad_()
    joined = concatenate(a, b)
    assert torch.equal(joined, torch.cat([a, b], dim=1))
    assert joined.is_contiguous(memory_format=CHANNELS_LAST[n_dims + 2])
    (joined * torch.arange(1.0, 4.0).view(3, *[1] * n_dims)).sum().backward()
    assert torch.equal(a.grad, torch.tensor([1.0, 2.0]).view(2, *[1] * n_dims).expand_as(a))


@torch.no_grad()
@BOTH
def test_the_slicing_follows_the_weights(n_dims: int) -> None:
    first, second = (SliceMambaResidualUNet(**arguments(n_dims)).eval() for _ in range(2))
    wake(first)
    first.set_slicing([(1,) * n_dims, (4,) * n_dims, (2,) * n_dims, (3,) * n_dims])
    second.load_state_dict(first.state_dict())
    assert second.get_slicing() == first.get_slicing()
    assert torch.equal(second(image(n_dims)), first(image(n_dims)))
    before = second(image(n_dims))
    second.set_slicing([(2,) * n_dims] * 4)
    assert not torch.allclose(second(image(n_dims)), before)


@torch.no_grad()
@BOTH
@pytest.mark.parametrize("share_weights", [False, True])
def test_a_path_of_the_supernet_is_the_network_that_is_extracted(n_dims: int, share_weights: bool) -> None:
    supernet = SliceMambaResidualSupernet(**arguments(n_dims), share_weights=share_weights).eval()
    wake(supernet)
    path = (0, 1, 3, 2)
    supernet.set_architecture(path)
    network = supernet.extract(path)
    assert isinstance(network, SliceMambaResidualUNet)
    assert network.get_slicing() == supernet.slicing_of(path)
    assert torch.equal(network(image(n_dims)), supernet(image(n_dims)))


@torch.no_grad()
@BOTH
@pytest.mark.parametrize("blocks", [{}, {"n_blocks_per_stage": [1, 0, 0, 0], "n_blocks_per_stage_decoder": [0, 0, 1]}])
def test_steps_and_blocks_in_turn_are_the_forward_pass(n_dims: int, blocks: dict[str, list[int]]) -> None:
    supernet = SliceMambaResidualSupernet(**arguments(n_dims, **blocks)).eval()
    wake(supernet)
    steps = supernet.steps()
    x, skips = steps[0](image(n_dims), ())
    for block, step in zip(supernet.block_positions(), steps[1:], strict=True):
        x, skips = step(block(x), skips)
    assert torch.equal(x, supernet(image(n_dims)))


@torch.no_grad()
@BOTH
def test_without_scans_the_slicing_means_nothing_and_the_gate_still_counts(n_dims: int) -> None:
    network = SliceMambaResidualUNet(**arguments(n_dims, scan=False)).eval()
    begun = network(image(n_dims))
    wake(network)
    woken = network(image(n_dims))
    assert not torch.allclose(begun, woken, atol=1e-2)
    network.set_slicing([(1,) * n_dims] * 4)
    assert torch.equal(network(image(n_dims)), woken)
    assert not any(name.endswith(("A_logs", "x_proj_weight")) for name in network.state_dict())
    # the sum of D x over the directions
    block = next(module for module in network.modules() if isinstance(module, S3Block)).bss
    tokens = torch.randn(1, 6, block.inner)
    torch.testing.assert_close(block.scan(tokens, (1,) * (n_dims - 2) + (2, 3)), 2 * n_dims * tokens)


@torch.no_grad()
def test_normalised_scans_do_not_grow_with_their_input() -> None:
    plain, normalised = (
        SliceMambaResidualUNet(**arguments(2, normalise_scan=on)).encoder.stages[2].blocks[0].bss
        for on in (False, True)
    )
    tokens = torch.randn(1, 6, plain.inner)
    for block, most in ((plain, None), (normalised, 150.0)):
        growth = block.scan(100 * tokens, (2, 3)).norm() / block.scan(tokens, (2, 3)).norm()
        assert (growth < most) if most else (growth > 1000)


@torch.no_grad()
def test_without_blocks_it_is_a_network_and_no_supernet() -> None:
    none = {"n_blocks_per_stage": [0] * 4, "n_blocks_per_stage_decoder": [0] * 3}
    network = SliceMambaResidualUNet(**arguments(2, **none))
    assert network.n_blocks == 0
    assert network(image(2)).shape == (2, 3, *SIZES[2])
    network.set_slicing([])
    network.load_state_dict(network.state_dict())
    assert network.get_slicing() == ()
    with pytest.raises(ValueError, match="no S3 blocks, so there is no slicing to search"):
        SliceMambaResidualSupernet(**arguments(2, **none))


@BOTH
@pytest.mark.parametrize("kind", ["torchscript", pytest.param("pt2", marks=pytest.mark.slow)])
def test_it_is_exported(n_dims: int, kind: str, tmp_path: Path) -> None:
    network = SliceMambaResidualUNet(**arguments(n_dims)).eval()
    wake(network)
    file, example = tmp_path / f"network.{kind}", image(n_dims, batch=1)
    with quietly(), torch.no_grad():
        FORMATS[kind].write(network, example, file)
        torch.testing.assert_close(FORMATS[kind].load(file)(example), network(example), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@BOTH
def test_it_compiles_to_one_graph(n_dims: int) -> None:
    network = SliceMambaResidualUNet(**arguments(n_dims))
    wake(network)
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(compiled(image(n_dims)), network(image(n_dims)))
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_blocks_per_stage": [0, 0, 0, -1]}, "must all be at least 0"),
        ({"n_blocks_per_stage_decoder": [0] * 4}, "has 4 entries, but n_stages is 4: .* 3 in the decoder"),
        ({"kernel_sizes": [[3, 3]] * 3}, "kernel_sizes has 3 entries"),
        ({"kernel_sizes": [[3, 3]] * 3 + [[2, 3]]}, "must be odd"),
        ({"kernel_sizes": [[3, 3, 3]] * 4}, "2 per stage"),
        ({"strides": [[2, 2]] * 4}, r"strides\[0\] is \[2, 2\]"),
        ({"n_conv_per_stage": [2, 0, 2, 2]}, "n_conv_per_stage .* at least 1"),
        ({"norm_eps": 0.0}, "norm_eps is 0.0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SliceMambaResidualUNet(**arguments(2, **changes))


def test_one_resolution_is_no_u_net() -> None:
    one = {
        **{"n_stages": 1, "features_per_stage": [6], "strides": [[1, 1]], "kernel_sizes": [[3, 3]]},
        **{"n_conv_per_stage": [2], "n_conv_per_stage_decoder": [], "n_blocks_per_stage": [1]},
    }
    with pytest.raises(ValueError, match="n_stages is 1; a U-Net has 2 resolutions or more"):
        SliceMambaResidualUNet(**arguments(2, **one, n_blocks_per_stage_decoder=[]))
