"""Gradients of replayed passes are those of the same passes without graphs.

With stand-ins for CUDA graphs that compute; real ones are in tests/gpu.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunetv2_slicemamba.nets import cuda_graphs, network_graphs
from nnunetv2_slicemamba.nets.cuda_graphs import TrainingGraph
from nnunetv2_slicemamba.nets.network_graphs import BlockGraphs, NetworkGraphs


class Computing(TrainingGraph):
    """Its replays compute again, as real ones do: from fixed memory, into fixed memory. A forward pass may write over
    gradients, its own and those of other graphs in its memory, and a backward pass writes over what it has used."""

    replays = 0

    def __init__(self, module, call, inputs, memory=None):
        super().__init__(module, call, inputs, memory)
        twins = {name: p.detach().requires_grad_() for name, p in module.named_parameters() if p.requires_grad}
        sources = [*(x for x in self.inputs if x.requires_grad), *twins.values()]

        given = self.memory.__dict__.setdefault("given", [])
        given.extend(g for g in self.gradients if g is not None)

        def forward():
            Computing.replays += 1
            for gradient in given:
                gradient.fill_(torch.nan)
            with torch.enable_grad():
                made = cuda_graphs.as_list(torch.func.functional_call(module, twins, tuple(self.inputs)))
            self.memory.left = made, sources  # over what the pass before left there
            for own, new in zip(self.outputs, made, strict=True):
                own.copy_(new.detach())

        def backward():
            found = torch.autograd.grad(*self.memory.left, self.grad_outputs)
            for own, new in zip(self.gradients[-len(sources) :], found, strict=True):
                own.copy_(new)

        self.forward_graph.replay, self.backward_graph.replay = forward, backward


@pytest.fixture
def replays(cuda, monkeypatch):
    """Count of the forward replays of graphs that compute."""
    monkeypatch.setattr(network_graphs, "TrainingGraph", Computing)
    monkeypatch.setattr(Computing, "replays", 0)
    return lambda: Computing.replays


def recorded(network, x):
    """The network as it trains once it is recorded, and as it would without."""
    made = NetworkGraphs()
    network.train()
    made.record_training(network, network.forward, x, ())
    return lambda x: made.run(network, network.forward, x, ()), network


def gradients(network, passes, way):
    for p in network.parameters():
        p.grad = None
    passes(way)
    return [p.grad.clone() for p in network.parameters()]


def summed(way, xs):
    for x in xs:
        way(x).square().sum().backward()


def from_zeros(way, xs, network):
    for x in xs:
        for p in network.parameters():
            if p.grad is not None:
                p.grad.zero_()
        way(x).square().sum().backward()


def together(way, xs):
    sum(way(x).square().sum() for x in xs).backward()


@pytest.mark.parametrize(
    ("passes", "expected"),
    [(summed, 3), (from_zeros, 3), (together, 1)],
    ids=["summed", "zeros", "together"],
)
def test_gradients_of_several_passes(passes, expected, replays, network):
    """Summed over batches, written over zeros, of a sum over several passes."""
    xs = torch.randn(3, 5, 3).unbind()
    with_graphs, without = recorded(network, xs[0])
    extra = (network,) if passes is from_zeros else ()
    got = gradients(network, lambda way: passes(way, xs, *extra), with_graphs)
    assert replays() == expected
    wanted = gradients(network, lambda way: passes(way, xs, *extra), without)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_a_pass_is_over_with_its_gradients_or_with_its_results(replays, network):
    xs = torch.randn(4, 5, 3).unbind()
    with_graphs, _ = recorded(network, xs[0])
    losses = []
    for x in xs[:2]:
        losses.append(with_graphs(x).sum())  # kept, with the pass that it came from
        losses[-1].backward()
    with_graphs(xs[2])  # nobody can ask for its gradients
    result = with_graphs(xs[3])
    assert replays() == 4
    with_graphs(xs[0])
    assert replays() == 4
    result.sum().backward()
    with_graphs(xs[0])
    assert replays() == 5


@pytest.mark.parametrize("later", [False, True], ids=["", "after a later pass"])
def test_gradients_of_a_pass_that_are_asked_for_twice_are_refused(later, replays, network):
    x = torch.randn(5, 3)
    with_graphs, _ = recorded(network, x)
    loss = with_graphs(x).sum()
    loss.backward(retain_graph=True)
    kept = with_graphs(x) if later else None
    with pytest.raises(RuntimeError, match=r"asked for once.*SLICEMAMBA_GRAPHS=0"):
        loss.backward()
    assert replays() == 1 + later
    del kept


def test_second_derivatives_of_a_replayed_pass_are_refused_even_where_they_would_only_lack_a_term(replays, network):
    x = torch.randn(5, 3)
    with_graphs, _ = recorded(network, x)
    with pytest.raises(RuntimeError, match="create_graph=True asks for second derivatives .*SLICEMAMBA_GRAPHS=0"):
        torch.autograd.grad(with_graphs(x).sum(), list(network.parameters()), create_graph=True)
    assert replays() == 1


def test_gradients_of_paths_that_take_turns_add_up(replays):
    """The case of a supernet's step that sums the gradients of several paths."""
    x = torch.randn(5, 3, requires_grad=True)
    made, pair = BlockGraphs(), nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])

    def by_turns(module, x):
        return made.run(module, module.forward, x, 2, ())

    for module in (*pair, *pair):
        by_turns(module, x).sum().backward()
    before = replays()

    def passes(way):
        for module in (*pair, *pair):
            way(module, x).square().sum().backward()

    got = gradients(pair, passes, by_turns)
    assert replays() == before + 4
    wanted = gradients(pair, passes, lambda module, x: module(x))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_of_an_input_of_ones_own_add_up(replays, network):
    x = torch.randn(5, 3, requires_grad=True)
    with_graphs, without = recorded(network, x)
    found = []
    for way in (with_graphs, without):
        x.grad = None
        for factor in (1, 3):
            (factor * way(x)).square().sum().backward()
        found.append(x.grad)
    assert replays() == 2
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("change", ["memory", "parameter", "thawed", "frozen"])
def test_parameters_that_change_their_place_or_begin_to_train(change, replays, network):
    x, first = torch.randn(5, 3), network[0]
    first.bias.requires_grad = change != "thawed"
    with_graphs, without = recorded(network, x)
    if change == "memory":
        first.bias.data = torch.randn(4)
    elif change == "parameter":
        first.bias = nn.Parameter(torch.randn(4))
    else:
        first.bias.requires_grad = change == "thawed"
    found = []
    for way in (with_graphs, without):
        for p in network.parameters():
            p.grad = None
        summed(way, [x])
        found.append([p.grad for p in network.parameters()])
    assert replays() == (change == "frozen")
    assert (first.bias.grad is None) == (change == "frozen")
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_blocks_that_share_their_memory_in_one_pass(replays):
    """The case of a step that draws two paths before it asks for gradients."""
    xs = torch.randn(2, 5, 3, requires_grad=True).unbind()
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    made, both = BlockGraphs(), nn.ModuleList([first, second])

    def by_turns(module, x):
        return made.run(module, module.forward, x, 2, ())

    for module in (first, second, first, second):
        by_turns(module, xs[0]).sum().backward()
    assert replays() == 2

    def passes(way):
        together(lambda x: way(first, x) * way(second, x), xs)

    got = gradients(both, passes, by_turns)
    assert replays() == 3
    wanted = gradients(both, passes, lambda module, x: module(x))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)
