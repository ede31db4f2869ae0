"""A block may scan, keep all but the scans, or be left out; the weights say which, and nothing is computed in vain."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from nnunetv2_slicemamba.nets import (
    S3Block,
    SliceMambaResidualSupernet,
    SliceMambaResidualUNet,
    SliceMambaSupernet,
    SliceMambaUNet,
    Supernet,
    bss,
)
from nnunetv2_slicemamba.ops import available_backends
from nnunetv2_slicemamba.slicing.candidates import NO_BLOCK, NO_SCAN, Slicing, wide_candidates
from tests.nets.residual_networks import arguments

Settings = Callable[..., dict[str, Any]]
# those along the single axes, which together read as the thickness (2, 4) or (2, 4, 3) does
ONE_AXIS = {2: ("4@h", "2@w"), 3: ("4x3@d", "2x3@h", "2x4@w")}
KINDS = [(kind, n_dims) for kind in ("paper", "hybrid", "residual") for n_dims in (2, 3)]
SIZES = {2: (16, 32), 3: (8, 16, 16)}


@pytest.fixture(params=KINDS, ids=str)
def made(request: pytest.FixtureRequest, settings: Settings) -> tuple[type, type, dict[str, Any], int]:
    """The network, its supernet, their arguments and number of axes, of every kind."""
    kind, n_dims = request.param
    if kind == "residual":
        return SliceMambaResidualUNet, SliceMambaResidualSupernet, arguments(n_dims), n_dims
    stem = {"stem_features": [4, 8] if n_dims == 2 else [8]} if kind == "hybrid" else {}
    return SliceMambaUNet, SliceMambaSupernet, settings(n_dims, **stem), n_dims


@torch.no_grad()
def awake(network: Any) -> Any:
    """In evaluation, with weights so large that every block matters, also one that begins as the identity."""
    for module in network.modules():
        if isinstance(module, S3Block):
            module.bss.out_proj.weight.normal_(std=0.3)
            module.bss.in_proj.weight.mul_(8)
    return network.eval()


def choices(n_dims: int, n_blocks: int, turn: int) -> Slicing:
    offered = (*wide_candidates(n_dims)[:-2], *ONE_AXIS[n_dims], NO_SCAN, NO_BLOCK)
    return tuple(offered[(turn * i - 1 - turn) % len(offered)] for i in range(n_blocks))


def image(n_dims: int) -> torch.Tensor:
    return torch.randn(1, 2, *SIZES[n_dims], generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_folds_with_different_choices_predict_one_after_another_in_one_network(made: Any) -> None:
    network, _, kwargs, n_dims = made
    folds, x = [], image(n_dims)
    for turn in (1, 3):
        fold = awake(network(**kwargs))
        fold.set_slicing(choices(n_dims, fold.n_blocks, turn))
        folds.append(fold)
    assert {NO_SCAN, NO_BLOCK} <= set(folds[0].get_slicing())
    assert set(ONE_AXIS[n_dims]) & set(folds[1].get_slicing())
    assert folds[0].get_slicing() != folds[1].get_slicing()
    one = network(**kwargs).eval()
    for fold in (*folds, *folds):
        one.load_state_dict(fold.state_dict())
        assert one.get_slicing() == fold.get_slicing()
        assert torch.equal(one(x), fold(x))


@torch.no_grad()
@pytest.mark.parametrize("share_weights", [False, True])
def test_a_path_of_the_wide_supernet_is_the_network_that_is_extracted(share_weights: bool, made: Any) -> None:
    _, supernet_class, kwargs, n_dims = made
    candidates = wide_candidates(n_dims)
    supernet = awake(supernet_class(**kwargs, candidates=candidates, share_weights=share_weights))
    path = tuple((3 * i - 1) % len(candidates) for i in range(supernet.n_blocks))
    supernet.set_architecture(path)
    extracted = supernet.extract(path)
    assert extracted.get_slicing() == supernet.slicing_of(path) == tuple(candidates[i] for i in path)
    x = image(n_dims)
    assert torch.equal(extracted(x), supernet(x))
    again = supernet_class(**kwargs, candidates=candidates, share_weights=share_weights).eval()
    again.load_state_dict(supernet.state_dict())
    assert torch.equal(again(x), supernet(x))


def test_no_block_is_the_identity_and_no_scan_keeps_all_but_the_scans() -> None:
    x = torch.randn(2, 5, 6, 8)
    block, without = awake(S3Block(8, thickness=NO_SCAN)), awake(S3Block(8, scan=False))
    without.load_state_dict({name: value for name, value in block.state_dict().items() if name in without.state_dict()})
    torch.testing.assert_close(block(x), without(x))
    block.set_candidate((2, 4))
    assert not torch.allclose(block(x), without(x))
    block.set_candidate(NO_BLOCK)
    assert block(x) is x


@pytest.mark.parametrize("backend", available_backends("cpu"))
@pytest.mark.parametrize("n_dims", [2, 3])
def test_all_axes_read_as_the_single_ones_do_together(
    n_dims: int, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLICEMAMBA_BACKEND", backend)
    sizes = (5, 6, 7)[-n_dims:]
    block = S3Block(8, n_dims, thickness=(2, 4, 3)[:n_dims], d_state=4)
    tokens = torch.randn(2, math.prod(sizes), 16, generator=torch.Generator().manual_seed(1))
    dout = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(2))

    def result(candidate: Any) -> list[torch.Tensor]:
        block.set_candidate(candidate)
        assert block.candidate == candidate
        x = tokens.clone().requires_grad_()
        own = dict(block.bss.named_parameters())
        scans = [own[name] for name in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")]
        out = block.bss.scan(x, sizes)
        return [out, *torch.autograd.grad(out, [x, *scans], dout)]

    together = result((2, 4, 3)[:n_dims])
    single = [result(candidate) for candidate in ONE_AXIS[n_dims]]
    for whole, *parts in zip(together, *single, strict=True):
        torch.testing.assert_close(sum(parts), whole, rtol=1e-4, atol=1e-4)
    # its own two directions alone have a gradient
    assert all((part[1].abs().sum() > 0) for part in single)
    assert [int((part[3].flatten(1).abs().sum(1) > 0).sum()) for part in single] == [2] * n_dims


def test_a_left_out_scan_or_block_runs_no_scan_and_gets_no_gradient(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a scan was computed")

    network = SliceMambaUNet(**settings(drop_path_rate=0.2)).train()
    network.set_slicing([NO_SCAN, NO_BLOCK] * 4)
    monkeypatch.setattr(bss, "slice_scan", refuse)
    network(image(2)).square().mean().backward()
    for i, block in enumerate(network.block_positions()):
        got = {name for name, p in block.named_parameters() if p.grad is not None}
        scans = {"bss.x_proj_weight", "bss.dt_projs_weight", "bss.dt_projs_bias", "bss.A_logs"}
        assert got == (set() if i % 2 else {name for name, _ in block.named_parameters()} - scans)
    with torch.no_grad():
        network.eval()(image(2))


@torch.no_grad()
def test_an_unknown_choice_in_the_weights_or_by_name_is_refused(settings: Settings) -> None:
    network = SliceMambaUNet(**settings())
    with pytest.raises(ValueError, match="candidate 'no-scans' does not exist: give a thickness per axis, no-scan or"):
        network.set_slicing(["no-scans"] * 8)
    weights = network.state_dict()
    weights["slicing"] = torch.tensor([[0, 0]] * 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"thickness \(0, 0\) is out of range"):
        network.load_state_dict(weights)


def test_paths_of_every_number_of_blocks_are_drawn_alike(settings: Settings) -> None:
    supernet: Supernet = SliceMambaSupernet(**settings(candidates=wide_candidates(2)))
    source = torch.Generator().manual_seed(7)
    draws = torch.tensor([supernet.sample_architecture(source) for _ in range(1800)])
    left_out = draws == supernet.candidates.index(NO_BLOCK)
    assert chisquare(torch.bincount(left_out.sum(1), minlength=9).numpy()).pvalue > 1e-4
    others = torch.bincount(draws[~left_out], minlength=7)
    assert chisquare(others.numpy()).pvalue > 1e-4
    plain = torch.tensor([supernet.sample_architecture(source, path_dropout=False) for _ in range(400)])
    assert chisquare(torch.bincount(plain.flatten(), minlength=8).numpy()).pvalue > 1e-4
