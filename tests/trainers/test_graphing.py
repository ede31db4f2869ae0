"""When do training steps replay CUDA graphs, and what happens where they cannot? Recording is tested in tests/gpu."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_slicemamba.nets import SliceMambaSupernet, SliceMambaUNet, training_graphs
from nnunetv2_slicemamba.nets.network_graphs import BlockGraphs
from nnunetv2_slicemamba.trainers.base import SliceMambaBaseTrainer

SETTINGS = {
    "input_channels": 1,
    "num_classes": 2,
    "n_stages": 2,
    "features_per_stage": [8, 16],
    "strides": [[4, 4], [2, 2]],
    "n_blocks_per_stage": [1, 1],
    "n_blocks_per_stage_decoder": [1, 1],
}
GPU = torch.device("cuda", 0)


@pytest.fixture
def chosen(monkeypatch):
    """The CUDA backend seems to run."""
    monkeypatch.setattr(training_graphs, "block_backend", lambda device, dtype: "cuda")


def test_steps_are_recorded_on_a_gpu_by_the_cuda_backend(chosen, monkeypatch):
    network = SliceMambaUNet(**SETTINGS)
    assert training_graphs.unavailable_reason(network, GPU) is None
    assert "cpu" in training_graphs.unavailable_reason(network, torch.device("cpu"))
    checkpointed = SliceMambaUNet(**SETTINGS, activation_checkpointing=True)
    assert "checkpointing" in training_graphs.unavailable_reason(checkpointed, GPU)
    monkeypatch.setenv("SLICEMAMBA_GRAPHS", "0")
    assert "SLICEMAMBA_GRAPHS" in training_graphs.unavailable_reason(network, GPU)
    monkeypatch.delenv("SLICEMAMBA_GRAPHS")
    monkeypatch.setattr(training_graphs, "block_backend", lambda device, dtype: None)
    assert "CUDA backend" in training_graphs.unavailable_reason(network, GPU)


@pytest.mark.parametrize("share_weights", [False, True])
def test_blocks_of_one_position_share_their_graphs_memory(share_weights):
    network = SliceMambaSupernet(**SETTINGS, share_weights=share_weights)
    training_graphs.record(network, torch.zeros(1, 1, 16, 16))
    positions = [[block.graphs for block in position] for position in network.block_positions()]
    assert all(isinstance(graphs, BlockGraphs) for blocks in positions for graphs in blocks)
    assert all(len(set(map(id, blocks))) == 1 for blocks in positions)
    assert len({id(blocks[0]) for blocks in positions}) == network.n_blocks
    training_graphs.drop(network, inference=True)
    assert all(block.graphs is None for position in network.block_positions() for block in position)


def test_copies_of_a_network_have_no_graphs():
    network = SliceMambaUNet(**SETTINGS)
    network.graphs.made["key"], network.graphs.inference = object(), False
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert not copied.graphs.made
        assert copied.graphs.inference
        assert copied.graphs is not network.graphs
    supernet = SliceMambaSupernet(**SETTINGS)
    training_graphs.record(supernet, torch.zeros(1, 1, 16, 16))
    blocks = [block for position in supernet.block_positions() for block in position]
    blocks[0].graphs.made["key"] = object()
    assert not copy.deepcopy(blocks[0]).graphs.made


class Trainer(SliceMambaBaseTrainer):
    """As much of a trainer as a step needs."""

    def __init__(self, network):
        self.network, self.is_ddp, self.device = network, False, torch.device("cpu")
        self.tried_to_record, self.replays, self.lines = True, True, []
        self.grad_scaler = None

    def print_to_log_file(self, *words, **_):
        self.lines.append(" ".join(words))


def steps(monkeypatch, failures):
    """nnU-Net's step, which runs out of memory `failures` times; the list of its calls."""
    calls = []

    def train_step(self, batch):
        calls.append(batch)
        if len(calls) <= failures:
            raise torch.cuda.OutOfMemoryError("no memory")
        return {"loss": 1.0}

    monkeypatch.setattr(nnUNetTrainer, "train_step", train_step)
    return calls


def test_a_step_without_enough_memory_is_made_again_without_graphs(monkeypatch):
    calls, network = steps(monkeypatch, 1), SliceMambaUNet(**SETTINGS)
    network.graphs.training = network.graphs.made["key"] = object()
    trainer = Trainer(network)
    assert trainer.step_or_drop_graphs("batch") == {"loss": 1.0}
    assert calls == ["batch", "batch"]
    assert network.graphs.training is None
    assert not network.graphs.made
    assert not network.graphs.inference  # the memory is short
    assert len(trainer.lines) == 1


def test_without_graphs_running_out_of_memory_ends_the_training(monkeypatch):
    calls = steps(monkeypatch, 2)
    trainer = Trainer(SliceMambaUNet(**SETTINGS))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        trainer.step_or_drop_graphs("batch")
    assert len(calls) == 2
    calls.clear()
    with pytest.raises(torch.cuda.OutOfMemoryError):
        trainer.step_or_drop_graphs("batch")
    assert len(calls) == 1


def test_graphs_that_cannot_be_recorded_are_done_without(monkeypatch, chosen):
    network = SliceMambaUNet(**SETTINGS)
    trainer = Trainer(network)
    trainer.replays = False
    monkeypatch.setattr(training_graphs, "unavailable_reason", lambda network, device: None)
    monkeypatch.setattr(SliceMambaUNet, "record_training", lambda *_: (_ for _ in ()).throw(RuntimeError("broken")))
    trainer.record_graphs(torch.zeros(1, 1, 16, 16))
    assert not trainer.replays
    assert "broken" in trainer.lines[0]
    monkeypatch.setattr(SliceMambaUNet, "record_training", lambda *_: None)
    monkeypatch.setattr(training_graphs, "is_roomy", lambda device: False)
    trainer.record_graphs(torch.zeros(1, 1, 16, 16))
    assert trainer.replays
    assert not network.graphs.inference  # validation leaves the memory to training


def distributed(network):
    """A trainer of one of several processes: nnU-Net wraps the network in DDP."""
    trainer = Trainer(network)
    trainer.network, trainer.is_ddp, trainer.replays = SimpleNamespace(module=network), True, False
    return trainer


def test_the_network_inside_ddp_is_recorded(monkeypatch, chosen):
    monkeypatch.setattr(training_graphs, "unavailable_reason", lambda network, device: None)
    recorded = []
    monkeypatch.setattr(training_graphs, "record", lambda network, data: recorded.append(network))
    network = SliceMambaUNet(**SETTINGS)
    trainer = distributed(network)
    trainer.record_graphs(torch.zeros(1, 1, 16, 16))
    assert trainer.replays
    assert recorded == [network]
    compiled = distributed(torch.compile(network))
    compiled.record_graphs(torch.zeros(1, 1, 16, 16))
    assert not compiled.replays
    assert len(recorded) == 1


@pytest.mark.parametrize("replays", [True, False])
def test_one_of_several_processes_does_not_repeat_a_step(replays, monkeypatch):
    """The others may have its gradients already, and would wait for more."""
    calls, trainer = steps(monkeypatch, 1), distributed(SliceMambaUNet(**SETTINGS))
    trainer.replays = replays
    with pytest.raises(torch.cuda.OutOfMemoryError):
        trainer.step_or_drop_graphs("batch")
    assert len(calls) == 1
    assert any("SLICEMAMBA_GRAPHS=0" in line for line in trainer.lines) == replays


@pytest.mark.parametrize("where", ["network", "optimizer"])
def test_a_step_that_ran_out_of_memory_anywhere_is_made_again_as_if_it_had_not(where, make_trainer, batch_for):
    """The gradient scaler has unscaled the gradients already where the optimiser finds no memory for its state."""
    whole, short = (make_trainer("SliceMambaTrainer_1epoch") for _ in range(2))
    for trainer in (whole, short):
        trainer.grad_scaler, trainer.tried_to_record = torch.amp.GradScaler("cpu", init_scale=8.0), True
        trainer.replays = trainer is short
        trainer.network.eval()  # no stochastic depth
    failing, calls = (short.network, "forward") if where == "network" else (short.optimizer, "step"), []
    (owner, name), original = failing, getattr(*failing)

    def fail_first(*arguments, **named):
        calls.append(name)
        if len(calls) == 1:
            raise torch.cuda.OutOfMemoryError("no memory")
        return original(*arguments, **named)

    setattr(owner, name, fail_first)
    for trainer in (whole, short):
        for _ in range(2):
            trainer.train_step(batch_for(trainer))
    assert len(calls) == 3
    assert short.grad_scaler.get_scale() == whole.grad_scaler.get_scale() == 8.0
    for one, other in zip(short.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(one, other)
