"""The supernet holds one block per candidate and position, and one path of it is a network."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from nnunetv2_slicemamba.nets import SliceMambaSupernet, SliceMambaUNet

Settings = Callable[..., dict[str, Any]]
PATHS = [(0, 1, 2, 3, 3, 2, 1, 0), (3, 3, 0, 1, 2, 0, 2, 1)]


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(1, 2, 32, 48)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_candidates_in_2d_are_the_published_four_in_their_order(settings: Settings) -> None:
    assert SliceMambaSupernet(**settings()).candidates == ((2, 2), (2, 4), (4, 2), (4, 4))


def test_candidates_in_3d_are_all_eight_of_thickness_2_and_4(settings: Settings) -> None:
    candidates = SliceMambaSupernet(**settings(3)).candidates
    assert len(candidates) == len(set(candidates)) == 8
    assert set().union(*candidates) == {2, 4}


@pytest.mark.parametrize("n_dims", [2, 3])
def test_paths_are_drawn_uniformly_and_independently_of_the_position(n_dims: int, settings: Settings) -> None:
    supernet = SliceMambaSupernet(**settings(n_dims))
    source = generator(7)
    draws = torch.tensor([supernet.sample_architecture(source) for _ in range(800)])
    n = len(supernet.candidates)
    for position in range(8):
        counts = torch.bincount(draws[:, position], minlength=n)
        assert chisquare(counts.numpy()).pvalue > 1e-4, (position, counts)
        neighbour = draws[:, (position + 1) % 8]
        pairs = torch.bincount(draws[:, position] * n + neighbour, minlength=n * n)
        assert chisquare(pairs.numpy()).pvalue > 1e-4, (position, pairs)


def test_a_draw_is_a_function_of_the_generator(settings: Settings) -> None:
    one, two = SliceMambaSupernet(**settings()), SliceMambaSupernet(**settings())
    assert one.sample_architecture(generator(3)) == two.sample_architecture(generator(3))
    assert len({one.sample_architecture(generator(seed)) for seed in range(20)}) > 15


@torch.no_grad()
def test_a_drawn_path_is_used_but_not_stored(settings: Settings, x: torch.Tensor) -> None:
    supernet = SliceMambaSupernet(**settings()).eval()
    supernet.set_architecture(PATHS[0])
    stored = supernet(x)
    drawn = supernet.sample_architecture(generator(1))
    assert drawn != PATHS[0]
    assert supernet.get_architecture() == drawn
    assert torch.equal(supernet(x), supernet.extract(drawn)(x))
    assert supernet.state_dict()["architecture"].tolist() == list(PATHS[0])
    supernet.restore_architecture()
    assert supernet.get_architecture() == PATHS[0]
    assert torch.equal(supernet(x), stored)


@torch.no_grad()
@pytest.mark.parametrize("share_weights", [False, True])
def test_the_path_that_is_set_is_stored_and_comes_back_with_the_weights(
    share_weights: bool, settings: Settings, x: torch.Tensor
) -> None:
    kwargs = settings(share_weights=share_weights)
    trained, loaded = SliceMambaSupernet(**kwargs).eval(), SliceMambaSupernet(**kwargs).eval()
    for path in PATHS:
        trained.set_architecture(path)
        assert trained.state_dict()["architecture"].tolist() == list(path)
        loaded.sample_architecture(generator(5))
        loaded.load_state_dict(trained.state_dict())
        assert loaded.get_architecture() == path
        assert torch.equal(loaded(x), trained(x))


@torch.no_grad()
@pytest.mark.parametrize("share_weights", [False, True])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_keeps_its_path(
    duplicate: Callable[[SliceMambaSupernet], SliceMambaSupernet],
    share_weights: bool,
    settings: Settings,
    x: torch.Tensor,
) -> None:
    supernet = SliceMambaSupernet(**settings(share_weights=share_weights)).eval()
    supernet.set_architecture(PATHS[0])
    expected = supernet(x)
    copied = duplicate(supernet)
    assert torch.equal(copied(x), expected)
    copied.set_architecture(PATHS[1])
    assert torch.equal(supernet(x), expected)


@torch.no_grad()
@pytest.mark.parametrize("share_weights", [False, True])
@pytest.mark.parametrize("n_dims", [2, 3])
def test_the_extracted_network_is_the_path(n_dims: int, share_weights: bool, settings: Settings) -> None:
    supernet = SliceMambaSupernet(**settings(n_dims, share_weights=share_weights)).eval()
    x = torch.randn(1, 2, *(4, 32, 32)[-n_dims:])
    outputs = []
    for path in PATHS:
        supernet.set_architecture(path)
        network = supernet.extract(path)
        outputs.append(supernet(x))
        assert torch.equal(network(x), outputs[-1])
        assert network.get_slicing() == tuple(supernet.candidates[i] for i in path)
        assert network.state_dict()["slicing"].tolist() == [list(supernet.candidates[i]) for i in path]
    assert not torch.equal(*outputs)


def test_the_extracted_network_has_weights_of_its_own_and_the_supernets_state(settings: Settings) -> None:
    supernet = SliceMambaSupernet(**settings(deep_supervision=True)).eval()
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    supernet.decoder.deep_supervision = False
    network = supernet.extract(PATHS[0])
    assert not network.training
    assert isinstance(network(torch.randn(1, 2, 32, 32)), torch.Tensor)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())
    assert supernet.train().extract(PATHS[0]).training


def test_shared_weights_are_one_block_per_position(settings: Settings) -> None:
    shared = SliceMambaSupernet(**settings(share_weights=True))
    final = SliceMambaUNet(**settings())
    separate = SliceMambaSupernet(**settings())

    def in_blocks(network: Any) -> int:
        return sum(p.numel() for block in network.block_positions() for p in block.parameters())

    assert in_blocks(shared) == in_blocks(final)
    assert in_blocks(separate) == 4 * in_blocks(final)


@torch.no_grad()
def test_shared_weights_give_the_outputs_of_a_network_with_these_weights_and_the_paths_slicing(
    settings: Settings, x: torch.Tensor
) -> None:
    supernet = SliceMambaSupernet(**settings(share_weights=True)).eval()
    network = SliceMambaUNet(**settings()).eval()
    weights = {key: value for key, value in supernet.state_dict().items() if key != "architecture"}
    renamed = {
        ".".join(word for i, word in enumerate(key.split(".")) if not (".blocks." in key and i == 5)): value
        for key, value in weights.items()
    }
    for path in PATHS:
        network.load_state_dict(renamed | {"slicing": network.slicing})
        network.set_slicing(supernet.slicing_of(path))
        supernet.set_architecture(path)
        assert torch.equal(supernet(x), network(x))


def test_only_the_path_gets_gradients(settings: Settings, x: torch.Tensor) -> None:
    supernet = SliceMambaSupernet(**settings())
    supernet.set_architecture(PATHS[0])
    supernet(x).square().mean().backward()
    for (name, position), picked in zip(supernet.named_block_positions(), PATHS[0], strict=True):
        for index, candidate in enumerate(position):
            for parameter in candidate.parameters():
                assert (parameter.grad is not None) == (index == picked), (name, index)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ((0,) * 7, "has 7 indices, this network has 8 blocks"),
        ((0,) * 7 + (4,), r"index outside 0\.\.3"),
        ((0,) * 7 + (-1,), r"index outside 0\.\.3"),
    ],
)
def test_a_path_that_does_not_fit_is_refused_and_changes_nothing(
    path: tuple[int, ...], message: str, settings: Settings
) -> None:
    supernet = SliceMambaSupernet(**settings())
    supernet.set_architecture(PATHS[0])
    for use in (supernet.set_architecture, supernet.extract, supernet.slicing_of):
        with pytest.raises(ValueError, match=message):
            use(path)
    assert supernet.get_architecture() == PATHS[0]
    assert supernet.state_dict()["architecture"].tolist() == list(PATHS[0])


def test_own_candidates_are_used_and_bad_ones_refused(settings: Settings) -> None:
    supernet = SliceMambaSupernet(**settings(candidates=[(1, 1), (8, 3)]))
    assert supernet.extract((1,) * 8).get_slicing() == ((8, 3),) * 8
    for candidates in ([], [(2, 2), (2, 2)], [(2, 0)], [(2, 2, 2)]):
        with pytest.raises(ValueError, match=r"different slicings|out of range|spatial axes"):
            SliceMambaSupernet(**settings(candidates=candidates))
