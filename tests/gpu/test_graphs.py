"""CUDA graphs of networks and blocks give what the same passes give without them. Needs an NVIDIA GPU."""

from __future__ import annotations

import copy
import threading

import pytest
import torch

from nnunetv2_slicemamba.nets import SliceMambaResidualUNet, SliceMambaSupernet, SliceMambaUNet, training_graphs
from nnunetv2_slicemamba.nets.network_graphs import BlockGraphs, NetworkGraphs
from nnunetv2_slicemamba.ops.cuda_scan import unavailable_reason
from tests.gpu.scan_cases import relative_error

REASON = unavailable_reason(torch.device("cuda"), torch.float16)
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"the CUDA backend cannot run: {REASON}")
SETTINGS = {
    "input_channels": 3,
    "num_classes": 2,
    "n_stages": 3,
    "features_per_stage": [16, 32, 64],
    "strides": [[4, 4], [2, 2], [2, 2]],
    "n_blocks_per_stage": [1, 2, 1],
    "n_blocks_per_stage_decoder": [1, 1, 1],
    "deep_supervision": True,
}
HYBRID = {"stem_features": [8, 16], "skip": "concatenate"}
RESIDUAL = {
    **{"cls": SliceMambaResidualUNet, "strides": [[1, 1], [2, 2], [2, 2]], "kernel_sizes": [[3, 3]] * 3},
    **{"n_conv_per_stage": [2] * 3, "n_conv_per_stage_decoder": [2] * 2},
}
WITH_BLOCKS = {**RESIDUAL, "n_blocks_per_stage": [0, 1, 2], "n_blocks_per_stage_decoder": [1, 0]}
WITHOUT_BLOCKS = {**RESIDUAL, "n_blocks_per_stage": [0] * 3, "n_blocks_per_stage_decoder": [0] * 2}
CLOSE = 2e-3  # the same kernels, but libraries may choose other algorithms


def build(cls=SliceMambaUNet, **changed):
    torch.manual_seed(0)
    network = cls(**{**SETTINGS, "drop_path_rate": 0.0, **changed})
    for name, parameter in network.named_parameters():
        if name.endswith("out_proj.weight"):  # a residual network's start at zero
            torch.nn.init.trunc_normal_(parameter, std=0.02)
    return network.cuda().train()


def batches(count, batch=4, size=64):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, 3, size, size, generator=generator).cuda() for _ in range(count)]


def train(network, data, before=lambda i: None):
    """Losses and summed gradients of steps with a gradient scaler and clipping, as the trainer makes them.

    By SGD: AdamW turns the rounding of a gradient that should be zero into a whole step.
    """
    totals = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    optimiser = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.9)
    scaler = torch.amp.GradScaler("cuda", init_scale=1024.0)
    losses = []
    for i, x in enumerate(data):
        before(i)
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cuda"):
            loss = sum((o.float() - 1).square().mean() for o in network(x))
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        for name, p in network.named_parameters():
            if p.grad is not None:
                totals[name] += p.grad
        scaler.step(optimiser)
        scaler.update()
        losses.append(loss.item())
    return losses, totals


def check(got, wanted):
    assert got[0] == pytest.approx(wanted[0], rel=CLOSE)
    assert got[0][-1] < got[0][0]
    assert all(value.any() == got[1][name].any() for name, value in wanted[1].items())
    # gradients that hardly exist are rounding: of a bias before InstanceNorm, of values that are subnormal in half
    least = 1e-4 * max(value.norm() for value in wanted[1].values())
    errors = {
        name: ((got[1][name] - value).norm() / max(value.norm(), least)).item() for name, value in wanted[1].items()
    }
    worst = max(errors, key=errors.__getitem__)
    assert errors[worst] < 20 * CLOSE, (worst, errors[worst])


@pytest.mark.parametrize(
    "options",
    [{}, HYBRID, {"embedding_skip": True}, WITH_BLOCKS, WITHOUT_BLOCKS, {**WITH_BLOCKS, "scan": False}],
    ids=["paper", "hybrid", "embedding skip", "residual", "residual without blocks", "residual without scans"],
)
def test_training_the_final_network(options):
    data, network = batches(8), build(**options)
    plain = copy.deepcopy(network)
    with torch.autocast("cuda"):
        training_graphs.record(network, data[0])
    replayed = []
    graph = network.graphs.training.forward_graph
    network.graphs.training.forward_graph = type("Counted", (), {"replay": lambda _: replayed.append(graph.replay())})()
    check(train(network, data), train(plain, data))
    assert len(replayed) == len(data)
    # another shape, another slicing and inference do not replay it
    train(network, batches(1, size=96))
    network.set_slicing([(4, 4)] * network.n_blocks)
    train(network, data[:1])
    with torch.no_grad(), torch.autocast("cuda"):
        network(data[0])
    assert len(replayed) == len(data) + (network.n_blocks == 0)  # without blocks there is no slicing to change
    training_graphs.drop(network, inference=True)
    assert network.graphs.training is None


def test_stochastic_depth_is_drawn_anew_by_every_replay():
    (x,) = batches(1)
    network = build(drop_path_rate=0.5)
    with torch.autocast("cuda"):
        training_graphs.record(network, x)
        results = [network(x)[0].detach().clone() for _ in range(4)]  # not the pass: it would run without a replay
    assert not all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("options", [{"share_weights": False}, {"share_weights": True}, HYBRID], ids=str)
def test_training_the_supernet(options):
    data, network = batches(12), build(SliceMambaSupernet, **options)
    plain = copy.deepcopy(network)
    training_graphs.record(network, data[0])

    def path(of):
        return lambda i: of.sample_architecture(torch.Generator().manual_seed(i))

    check(train(network, data, path(network)), train(plain, data, path(plain)))
    made = [block.graphs.made for position in network.block_positions() for block in position]
    assert all(made)
    training_graphs.drop(network, inference=True)
    assert all(block.graphs is None for position in network.block_positions() for block in position)


@pytest.mark.parametrize("cls", [SliceMambaUNet, SliceMambaSupernet])
@pytest.mark.parametrize("together", [False, True])
def test_gradients_summed_over_batches_and_of_several_passes(cls, together, monkeypatch):
    monkeypatch.setattr(BlockGraphs, "EAGER_CALLS", 0)
    monkeypatch.setattr(BlockGraphs, "HEADROOM", 0.0)
    data, network = batches(3), build(cls)
    plain = copy.deepcopy(network)
    with torch.autocast("cuda"):
        training_graphs.record(network, data[0])
    found = []
    for one in (network, plain):
        if cls is SliceMambaSupernet:
            one.sample_architecture(torch.Generator().manual_seed(0))
        for _ in range(2):  # first with no gradients, then on top of those
            losses = []
            for x in data:
                with torch.autocast("cuda"):
                    losses.append(sum((o.float() - 1).square().mean() for o in one(x)))
                if not together:
                    losses[-1].backward()
            if together:
                sum(losses).backward()
        found.append({name: p.grad for name, p in one.named_parameters() if p.grad is not None})
    got, wanted = found
    assert got.keys() == wanted.keys()
    least = 1e-4 * max(value.norm() for value in wanted.values())
    for name, value in wanted.items():
        assert (got[name] - value).norm() < 20 * CLOSE * max(value.norm(), least), name


@pytest.mark.parametrize("setting", [("LARGEST", 10), ("HEADROOM", 1.1)], ids=str)
def test_large_blocks_and_full_memories_are_not_recorded(setting, monkeypatch):
    monkeypatch.setattr(BlockGraphs, *setting)
    network = build(SliceMambaSupernet)
    training_graphs.record(network, batches(1)[0])
    train(network, batches(5))
    assert not any(block.graphs.made for position in network.block_positions() for block in position)


def plain_inference(network, x):
    fresh = copy.deepcopy(network)
    assert not fresh.graphs.made
    return fresh(x)


@pytest.mark.parametrize("options", [{}, HYBRID], ids=str)
def test_inference_follows_weights_slicing_shape_and_autocast(options):
    network = build(deep_supervision=False, **options).eval()
    x, other = batches(2)
    with torch.inference_mode(), torch.autocast("cuda"):
        for _ in range(5):
            assert relative_error(network(x), plain_inference(network, x)) < CLOSE
        assert len(network.graphs.made) == 1
        first = network(x)
        assert relative_error(network(other), plain_inference(network, other)) < CLOSE
        assert torch.equal(network(x), first)  # results are copies
        weights = {
            name: value * 1.5 if value.is_floating_point() else value for name, value in network.state_dict().items()
        }
        network.load_state_dict(weights)
        assert relative_error(network(x), plain_inference(network, x)) < CLOSE
        assert len(network.graphs.made) == 1
        network.set_slicing([(4, 2)] * network.n_blocks)
        for _ in range(4):
            assert relative_error(network(x), plain_inference(network, x)) < CLOSE
        small = x[:1, :, :32]
        for _ in range(4):
            assert relative_error(network(small), plain_inference(network, small)) < CLOSE
        assert len(network.graphs.made) == 3
        network.decoder.seg_layers[-1].bias = torch.nn.Parameter(torch.full((2,), 5.0, device="cuda"))
        assert relative_error(network(small), plain_inference(network, small)) < CLOSE
    with torch.inference_mode():
        assert relative_error(network(x), plain_inference(network, x)) < CLOSE
        assert network(x).dtype == torch.float32


def test_folds_that_take_turns_keep_their_graphs(monkeypatch):
    monkeypatch.setattr(NetworkGraphs, "KEPT", 3)
    network, (x,) = build(deep_supervision=False).eval(), batches(1)
    folds = []
    for seed, thickness in enumerate(((2, 2), (2, 4), (4, 2), (4, 4))):
        torch.manual_seed(seed)
        fold = SliceMambaUNet(**{**SETTINGS, "deep_supervision": False})
        fold.set_slicing([thickness] * fold.n_blocks)
        folds.append(fold.state_dict())
    recorded = []
    record = NetworkGraphs.record
    monkeypatch.setattr(NetworkGraphs, "record", lambda self, *a: recorded.append(1) or record(*a))
    with torch.inference_mode(), torch.autocast("cuda"):
        for count in (3, 4):  # a fourth fold does not fit
            recorded.clear()
            for _ in range(5):
                for weights in folds[:count]:
                    network.load_state_dict(weights)
                    assert relative_error(network(x), plain_inference(network, x)) < CLOSE
            assert len(recorded) == 3 if count == 3 else len(recorded) > 3
            assert len(network.graphs.made) == 3


def test_hooks_are_called():
    network, (x,) = build(deep_supervision=False).eval(), batches(1)
    called = []
    with torch.inference_mode():
        for _ in range(4):
            network(x)
        network.encoder.stages[0].register_forward_hook(lambda *_: called.append(1))
        network(x)
    assert called == [1]


@pytest.mark.parametrize("what", ["inference", "training"])
def test_the_setting_switches_it_off(what, monkeypatch):
    monkeypatch.setenv("SLICEMAMBA_GRAPHS", "0")
    network, (x,) = build(deep_supervision=False).eval(), batches(1)
    if what == "training":
        assert "SLICEMAMBA_GRAPHS" in training_graphs.unavailable_reason(network, x.device)
        return
    with torch.inference_mode():
        for _ in range(4):
            network(x)
    assert not network.graphs.made


def test_recording_while_another_thread_pins_memory():
    stop, failures = threading.Event(), []

    def pin():
        size = 1000
        while not stop.is_set():
            try:
                torch.empty(size).pin_memory().cuda(non_blocking=True)
                size += 4096  # the allocator keeps no block of that size
            except Exception as error:
                failures.append(error)
                return

    thread = threading.Thread(target=pin)
    thread.start()
    try:
        data, network = batches(3), build()
        with torch.autocast("cuda"):
            training_graphs.record(network, data[0])
        train(network, data)
    finally:
        stop.set()
        thread.join()
    assert not failures
