"""Passes that are recorded, replayed and forgotten: with stand-ins for CUDA graphs; real ones are in tests/gpu."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunetv2_slicemamba.nets import SliceMambaUNet, cuda_graphs
from nnunetv2_slicemamba.nets.cuda_graphs import TrainingGraph
from nnunetv2_slicemamba.nets.network_graphs import BlockGraphs, NetworkGraphs


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
        monkeypatch.setenv(cuda_graphs.ENVIRONMENT_VARIABLE, "0")
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
    graph = TrainingGraph(module, module.forward, (x,))
    assert graph.can_replay(x)
    assert not graph.can_replay(x.detach())
    outputs = graph(x)
    assert isinstance(outputs, list)
    assert torch.equal(outputs[0], module(x)[0])
    assert module.used.weight.grad is None  # recording leaves nothing behind
    outputs[0].sum().backward()
    assert cuda.replays == 2
    # the stand-in does not compute again: the recorded gradients of a result whose grad_output is zero
    assert torch.equal(x.grad, torch.zeros(5, 3))
    assert torch.equal(module.used.weight.grad, torch.zeros(2, 3))
    assert module.unused.weight.grad is None
    assert torch.equal(graph.grad_outputs[0], torch.ones(5, 2))
    assert torch.equal(graph.grad_outputs[1], torch.zeros(()))


def test_recording_follows_a_network_whose_pass_is_not_over(cuda):
    """Its parameters' places in autograd are in use then, and not touched."""
    module, x = nn.Linear(3, 2), torch.randn(5, 3)
    pending = module(x).sum()
    seen = []
    module.weight.register_hook(lambda gradient: seen.append(gradient))
    TrainingGraph(module, module.forward, (x,))
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


def test_the_first_error_of_a_recording_is_the_one_that_is_told(cuda, monkeypatch):
    def fail(_):
        raise RuntimeError("second")

    monkeypatch.setattr(torch.cuda.CUDAGraph, "capture_end", fail)
    with pytest.raises(RuntimeError, match="first"), cuda_graphs.recording(1):
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
    graph = TrainingGraph(network, network.forward, (x,))
    after = dict(network.named_parameters(remove_duplicate=False))
    assert before.keys() == after.keys()
    assert all(after[name] is p for name, p in before.items())
    assert [id(p) for p in graph.parameters] == [id(p) for p in network.parameters()]
    # the stand-in replays nothing, so the gradients are those of a grad_output of zeros; but every one has its place
    graph(x).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_recording_a_hybrid_leaves_its_parameters(cuda):
    kwargs = {"n_blocks_per_stage": [1], "n_blocks_per_stage_decoder": [1], "stem_features": [4, 8]}
    network = SliceMambaUNet(1, 2, 1, [8], [[4, 4]], **kwargs).train()
    before = list(network.parameters())
    graph = TrainingGraph(network, network.forward, (torch.randn(1, 1, 8, 8),))
    assert all(p is q for p, q in zip(network.parameters(), before, strict=True))
    assert all(g is not None for g in graph.gradients[1:])
