"""When are passes recorded, replayed and forgotten? With stand-ins for CUDA graphs; real ones are in tests/gpu."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nnunetv2_slicemamba.nets import SliceMambaUNet, graphs
from nnunetv2_slicemamba.nets.graphs import BlockGraphs, NetworkGraphs, TrainingGraph


class Cuda:
    """Stands in for torch.cuda: graphs whose replay is only counted, so that results stay the recorded ones."""

    def __init__(self, monkeypatch):
        self.recorded, self.replays, self.pools, self.free, self.failing = 0, 0, [], 90, None
        self.pool_handles = 0

        class Graph:
            def capture_begin(_, pool, capture_error_mode):
                assert capture_error_mode == "thread_local"
                if self.failing is not None:
                    raise self.failing
                self.recorded += 1
                self.pools.append(pool)

            def capture_end(_):
                pass

            def replay(_):
                self.replays += 1

        def handle():
            self.pool_handles += 1
            return self.pool_handles

        fake = {
            "CUDAGraph": Graph,
            "Stream": lambda device: SimpleNamespace(wait_stream=lambda other: None),
            "current_stream": lambda: SimpleNamespace(wait_stream=lambda other: None),
            "stream": lambda stream: nullcontext(),
            "current_device": lambda: 0,
            "graph_pool_handle": handle,
            "empty_cache": lambda: None,
            "is_current_stream_capturing": lambda: False,
            "mem_get_info": lambda device: (self.free, 100),
        }
        for name, value in fake.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(graphs.Mode, "again", lambda mode: nullcontext())
        graphs._stream.cache_clear()


@pytest.fixture
def cuda(monkeypatch):
    yield Cuda(monkeypatch)
    graphs._stream.cache_clear()


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()


def run(network, made, x, state=()):
    with torch.no_grad():
        return made.run(network, network.forward, x, state)


def test_inference_is_recorded_at_the_third_call_and_results_are_copies(cuda, network):
    made, x = NetworkGraphs(), torch.randn(5, 3)
    results = [run(network, made, x) for _ in range(4)]
    assert (cuda.recorded, cuda.replays) == (1, 2)
    assert all(torch.equal(result, network(x)) for result in results)
    assert results[2].data_ptr() != results[3].data_ptr()


def test_what_decides_a_pass_has_a_graph_of_its_own_in_the_same_memory(cuda, network):
    made = NetworkGraphs()

    def three(x, state=()):
        for _ in range(3):
            run(network, made, x, state)

    x = torch.randn(5, 3)
    three(x)
    three(x[:4])
    three(x, "another slicing")
    assert cuda.recorded == 3
    with torch.inference_mode():
        three(x)
    assert cuda.recorded == 4
    assert len(set(cuda.pools)) == 1
    network[2].bias.data = network[2].bias.data.clone()  # other memory
    run(network, made, x)
    assert cuda.recorded == 4
    three(x)
    assert cuda.recorded == 5


def test_the_oldest_graph_makes_room(cuda, network, monkeypatch):
    monkeypatch.setattr(NetworkGraphs, "KEPT", 2)
    made, x = NetworkGraphs(), torch.randn(5, 3)
    for state in "abc":
        for _ in range(3):
            run(network, made, x, state)
    assert len(made.made) == 2
    before = cuda.recorded
    run(network, made, x, "c")
    assert cuda.recorded == before
    run(network, made, x, "a")
    assert cuda.recorded == before + 1


@pytest.mark.parametrize("why", ["training mode", "switched off", "setting", "hook", "gradients"])
def test_inference_without_graphs(why, cuda, network, monkeypatch):
    made, x = NetworkGraphs(), torch.randn(5, 3)
    if why == "training mode":
        network.train()
    elif why == "switched off":
        made.inference = False
    elif why == "setting":
        monkeypatch.setenv(graphs.ENVIRONMENT_VARIABLE, "0")
    elif why == "hook":
        network[1].register_forward_hook(lambda *_: None)
    for _ in range(5):
        if why == "gradients":
            made.run(network, network.forward, x, ())
        else:
            run(network, made, x)
    assert cuda.recorded == 0


def test_inference_goes_on_where_recording_fails(cuda, network, caplog):
    cuda.failing = RuntimeError("not today")
    made, x = NetworkGraphs(), torch.randn(5, 3)
    for _ in range(4):
        assert torch.equal(run(network, made, x), network(x))
    assert not made.inference
    assert caplog.text.count("not today") == 1


def test_training_replays_for_batches_like_the_recorded_one(cuda, network):
    made, x = NetworkGraphs(), torch.randn(5, 3)
    network.train()
    made.record_training(network, network.forward, x, "slicing")
    assert cuda.recorded == 2  # forward and backward
    assert cuda.pools[0] == cuda.pools[1]
    assert torch.equal(made.run(network, network.forward, x, "slicing"), network(x))
    assert cuda.replays == 1
    for batch, state in ((x[:2], "slicing"), (x.double(), "slicing"), (x, "another")):
        layer = network.double() if batch.dtype == torch.float64 else network.float()
        made.run(network, layer.forward, batch, state)
    network.float().eval()
    made.run(network, network.forward, x, "slicing")
    assert cuda.replays == 1
    made.drop()
    network.train()
    made.run(network, network.forward, x, "slicing")
    assert cuda.replays == 1


HOOKS = {
    "forward": lambda module, called: module.register_forward_hook(lambda *_: called.append(module)),
    "before": lambda module, called: module.register_forward_pre_hook(lambda *_: called.append(module)),
    "backward": lambda module, called: module.register_full_backward_hook(lambda *_: called.append(module)),
    "before backward": lambda module, called: module.register_full_backward_pre_hook(lambda *_: called.append(module)),
}


@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_are_called_in_training(kind, cuda, network):
    made, x, called = NetworkGraphs(), torch.randn(5, 3), []
    network.train()
    made.record_training(network, network.forward, x, ())
    handle = HOOKS[kind](network[2], called)
    made.run(network, network.forward, x, ()).sum().backward()
    assert called == [network[2]]
    assert cuda.replays == 0
    handle.remove()
    made.run(network, network.forward, x, ())
    assert cuda.replays == 1


def test_hooks_in_a_block_are_called_in_training(cuda):
    made, x, called = BlockGraphs(), torch.randn(5, 3, requires_grad=True), []
    block = nn.Sequential(nn.Linear(3, 3))
    blocks(made, block, x, 3)
    assert cuda.recorded == 2
    replays = cuda.replays
    block[0].register_forward_hook(lambda *_: called.append(True))
    blocks(made, block, x, 1)
    assert called == [True]
    assert cuda.replays == replays


def test_gradients_go_to_the_parameters_that_have_any(cuda):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)
            self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

        def forward(self, x):
            out = self.used(x) * self.frozen
            return [out, out.sum()]

    module, x = Two(), torch.randn(5, 3, requires_grad=True)
    graph = TrainingGraph(module, module.forward, x)
    assert graph.takes(x)
    assert not graph.takes(x.detach())
    outputs = graph(x)
    assert isinstance(outputs, list)
    assert torch.equal(outputs[0], module(x)[0])
    assert module.used.weight.grad is None  # recording leaves nothing behind
    outputs[0].sum().backward()
    assert cuda.replays == 2
    # the stand-in does not compute again: the recorded gradients of a result whose slope is zero
    assert torch.equal(x.grad, torch.zeros(5, 3))
    assert torch.equal(module.used.weight.grad, torch.zeros(2, 3))
    assert module.unused.weight.grad is None
    assert torch.equal(graph.slopes[0], torch.ones(5, 2))
    assert torch.equal(graph.slopes[1], torch.zeros(()))


def test_recording_follows_a_network_whose_pass_is_not_over(cuda):
    """Its parameters' places in autograd are in use then, and not touched."""
    module, x = nn.Linear(3, 2), torch.randn(5, 3)
    pending = module(x).sum()
    seen = []
    module.weight.register_hook(lambda gradient: seen.append(gradient))
    TrainingGraph(module, module.forward, x)
    assert not seen
    pending.backward()
    assert len(seen) == 1


def blocks(made, module, x, times, state="2x4"):
    for _ in range(times):
        result = made.run(module, module.forward, x, 2, state)
    return result


def test_blocks_are_recorded_after_two_passes_in_their_positions_memory(cuda):
    made, x = BlockGraphs(), torch.randn(5, 3, requires_grad=True)
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    blocks(made, first, x, 2)
    assert cuda.recorded == 0
    assert torch.equal(blocks(made, first, x, 1), first(x))
    assert cuda.recorded == 2
    for _ in range(3):
        blocks(made, first, x, 1)
    assert (cuda.recorded, cuda.replays) == (2, 4)
    blocks(made, second, x, 1)
    blocks(made, first, x, 1, "4x4")
    assert cuda.recorded == 6
    assert len(set(cuda.pools)) == 1


def test_blocks_that_are_large_or_find_little_memory_are_not_recorded(cuda, monkeypatch):
    module, x = nn.Linear(3, 3), torch.randn(5, 3, requires_grad=True)
    cuda.free = 20
    made = BlockGraphs()
    blocks(made, module, x, 5)
    assert cuda.recorded == 0
    assert made.off
    cuda.free = 30
    blocks(BlockGraphs(), module, x, 3)
    assert cuda.recorded == 2
    monkeypatch.setattr(BlockGraphs, "LARGEST", 29)
    blocks(BlockGraphs(), module, x, 5)
    assert cuda.recorded == 2


def test_a_block_that_cannot_be_recorded_trains_on(cuda, caplog):
    cuda.failing = RuntimeError("not today")
    module, x = nn.Linear(3, 3), torch.randn(5, 3, requires_grad=True)
    made = BlockGraphs()
    assert torch.equal(blocks(made, module, x, 6), module(x))
    assert made.off
    assert caplog.text.count("not today") == 1


class Computing(TrainingGraph):
    """Its replays compute again, as real ones do: from fixed memory, into fixed memory. A forward pass may write over
    gradients, its own and those of other graphs in its memory, and a backward pass writes over what it has used."""

    replays = 0

    def __init__(self, module, call, x, memory=None):
        super().__init__(module, call, x, memory)
        twins = {name: p.detach().requires_grad_() for name, p in module.named_parameters() if p.requires_grad}
        sources = [*([self.x] if self.x.requires_grad else []), *twins.values()]

        given = self.memory.__dict__.setdefault("given", [])
        given.extend(g for g in self.gradients if g is not None)

        def forward():
            Computing.replays += 1
            for gradient in given:
                gradient.fill_(torch.nan)
            with torch.enable_grad():
                made = graphs.as_list(torch.func.functional_call(module, twins, (self.x,)))
            self.memory.left = made, sources  # over what the pass before left there
            for own, new in zip(self.outputs, made, strict=True):
                own.copy_(new.detach())

        def backward():
            found = torch.autograd.grad(*self.memory.left, self.slopes)
            for own, new in zip(self.gradients[-len(sources) :], found, strict=True):
                own.copy_(new)

        self.forward_graph.replay, self.backward_graph.replay = forward, backward


@pytest.fixture
def replays(cuda, monkeypatch):
    """How often graphs that compute were replayed forward."""
    monkeypatch.setattr(graphs, "TrainingGraph", Computing)
    monkeypatch.setattr(Computing, "replays", 0)
    return lambda: Computing.replays


def recorded(network, x):
    """`network` as it trains once it is recorded, and as it would without."""
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


def test_gradients_of_paths_that_take_turns_add_up(replays):
    """As where a supernet's step sums the gradients of several paths."""
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
    """As where a step draws two paths before it asks for gradients."""
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


def test_the_first_error_of_a_recording_is_the_one_that_is_told(cuda, monkeypatch):
    def fail(_):
        raise RuntimeError("second")

    monkeypatch.setattr(torch.cuda.CUDAGraph, "capture_end", fail)
    with pytest.raises(RuntimeError, match="first"), graphs.recording(1):
        raise RuntimeError("first")


def test_on_a_cpu_the_network_has_no_graphs():
    network = SliceMambaUNet(1, 2, 1, [8], [[4, 4]], [1], [1]).eval()
    x = torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        for _ in range(4):
            network(x)
    assert not network.graphs.seen


def parameters_shared(kind):
    """A network in which a module, or a parameter alone, stands in two places."""
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    if kind == "module":
        network.append(network[0])
    else:
        network[2].weight = network[0].weight
    return network


@pytest.mark.parametrize("kind", ["module", "parameter"])
def test_recording_leaves_a_networks_parameters_in_all_their_places(kind, cuda):
    network, x = parameters_shared(kind), torch.randn(5, 3)
    before = dict(network.named_parameters(remove_duplicate=False))
    graph = TrainingGraph(network, network.forward, x)
    after = dict(network.named_parameters(remove_duplicate=False))
    assert before.keys() == after.keys()
    assert all(after[name] is p for name, p in before.items())
    assert [id(p) for p in graph.parameters] == [id(p) for p in network.parameters()]
    # the stand-in replays nothing: what was recorded is the gradient of a slope of zeros, but every one has its place
    graph(x).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_recording_a_hybrid_leaves_its_parameters(cuda):
    kwargs = {"n_blocks_per_stage": [1], "n_blocks_per_stage_decoder": [1], "stem_features": [4, 8]}
    network = SliceMambaUNet(1, 2, 1, [8], [[4, 4]], **kwargs).train()
    before = list(network.parameters())
    graph = TrainingGraph(network, network.forward, torch.randn(1, 1, 8, 8))
    assert all(p is q for p, q in zip(network.parameters(), before, strict=True))
    assert all(g is not None for g in graph.gradients[1:])
