"""What is measured is the path's own forward pass; what cannot be measured or compared is refused before work."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.nets import SliceMambaSupernet
from nnunetv2_slicemamba.nets.s3block import S3Block
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.planning.selection import select
from nnunetv2_slicemamba.search import SearchSettings
from nnunetv2_slicemamba.search.evaluation.cost_measurement import (
    REPEATS,
    WARM_UP,
    CostMeter,
    device_name,
    measured_with,
    require_measurable,
    require_same,
)
from nnunetv2_slicemamba.search.evaluation.supernet_fold import SupernetFold
from nnunetv2_slicemamba.search.objectives import Cost
from nnunetv2_slicemamba.search.records import tasks_of
from nnunetv2_slicemamba.trainers import TRAINERS

CPU = torch.device("cpu")
LATENCY, MEMORY = Cost("latency", True), Cost("memory", True)
PLANS, SUPERNET = "nnUNetSliceMambaSPlans", "SliceMambaSupernetTrainer_1epoch"


def tiny_supernet(share_weights: bool = False) -> SliceMambaSupernet:
    """Four blocks."""
    torch.manual_seed(0)
    sizes = [[2, 2], [2, 2]]
    network = SliceMambaSupernet(1, 3, 2, [4, 8], sizes, [1, 1], [1, 1], d_state=2, share_weights=share_weights)
    return network.eval()


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """(thickness, shape) of every block's pass; thickness 4x4 takes 4 ms more."""
    forward, seen = S3Block.forward, []

    def noted(self: S3Block, x: Tensor) -> Tensor:
        seen.append((tuple(self.bss.thickness), tuple(x.shape)))
        if tuple(self.bss.thickness) == (4, 4):
            time.sleep(0.004)
        return forward(self, x)

    monkeypatch.setattr(S3Block, "forward", noted)
    return seen


@pytest.mark.parametrize("share_weights", [False, True])
def test_the_latency_is_the_paths_own_in_milliseconds(passes: list[tuple], share_weights: bool) -> None:
    network = tiny_supernet(share_weights)
    n_blocks = network.n_blocks
    meter = CostMeter(network, 1, (8, 12), CPU, LATENCY)
    fast = meter.measure((0,) * n_blocks)
    assert {thickness for thickness, _ in passes} == {(2, 2)}
    assert len(passes) == n_blocks * (WARM_UP + REPEATS)
    assert {shape[0] for _, shape in passes} == {1}, "a batch of one"
    slow = meter.measure((3,) * n_blocks)
    assert 0 < fast < slow
    assert slow > 4 * n_blocks, "the blocks sleep for that long"


def test_one_slow_pass_does_not_decide_the_latency(passes: list[tuple], monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_supernet()
    times = iter([0.0, 1.0, *(x for i in range(REPEATS - 1) for x in (10.0 * i, 10.0 * i + 0.002))])
    monkeypatch.setattr("nnunetv2_slicemamba.search.evaluation.cost_measurement.time.perf_counter", lambda: next(times))
    assert CostMeter(network, 1, (8, 8), CPU, LATENCY).measure((0,) * network.n_blocks) == pytest.approx(2.0)


@pytest.mark.parametrize("share_weights", [False, True])
def test_the_weights_that_count_are_those_of_the_path_alone(share_weights: bool) -> None:
    network = tiny_supernet(share_weights)
    blocks = network.block_positions()
    own = CostMeter(network, 1, (8, 8), CPU, MEMORY)._bytes_of_path(blocks)
    path = network.extract((0,) * network.n_blocks)
    assert own == sum(4 * p.numel() for p in path.parameters())
    assert share_weights or own < sum(4 * p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("cost", "asked"), [(MEMORY, "--objective dice-memory"), (Cost("memory", False, 9.0), "--max-memory-mib")]
)
def test_memory_that_pytorch_does_not_count_is_refused_with_the_remedy(cost: Cost, asked: str) -> None:
    with pytest.raises(InputError, match=rf"{asked} needs a CUDA device, the device is 'cpu': .*--objective dice-lat"):
        require_measurable(cost, CPU)
    require_measurable(cost, torch.device("cuda"))
    require_measurable(LATENCY, CPU)
    require_measurable(None, CPU)


def test_what_a_cost_was_measured_with_names_device_pytorch_and_the_number_of_passes() -> None:
    known = measured_with(LATENCY, CPU)
    assert known["device"] == device_name(CPU)
    assert f"{torch.get_num_threads()} thread" in known["device"]
    assert known["pytorch"] == torch.__version__
    assert f"median of {REPEATS} forward passes" in known["cost_definition"]
    assert measured_with(None, CPU) == {}


def test_a_process_that_would_measure_otherwise_does_not_take_part() -> None:
    expected = {"device": "H100", "pytorch": "2.0"}
    require_same(expected, dict(expected))
    require_same({}, {})
    with pytest.raises(InputError, match=r"\(device A100 here, H100 there\).* start processes on equal devices only"):
        require_same(expected, {**expected, "device": "A100"})


def test_a_folds_evaluation_has_dice_cost_and_what_measured_it(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    selection = select("901", "2d", "0", PLANS)
    description = json.loads((selection.preprocessed_folder / "dataset.json").read_text())
    torch.manual_seed(0)
    trainer = TRAINERS[SUPERNET]({**selection.plans, "continue_training": False}, "2d", 0, description, CPU)
    trainer.initialize()
    trainer.save_checkpoint(str(selection.fold_folder(SUPERNET) / "checkpoint_final.pth"))
    path = (1,) * selection.n_blocks
    monkeypatch.setattr("nnunetv2_slicemamba.search.evaluation.cost_measurement.REPEATS", 2)
    plain = SupernetFold(SupernetFolder(selection, SUPERNET), CPU)(path)
    limited = SearchSettings(max_latency_ms=1e6)
    fold = SupernetFold(SupernetFolder(selection, SUPERNET), CPU, cost=limited.cost)
    costly = fold(path)
    assert costly.fitness == plain.fitness
    assert plain.cost is None
    assert costly.cost is not None
    assert costly.cost > 0.1
    added = {"device": device_name(CPU), "pytorch": str(torch.__version__)}
    assert costly.details == {**plain.details, **added}
    tasks = tasks_of([path, (2,) * selection.n_blocks])
    measured, left = [], [tasks[1:]]
    monkeypatch.setattr(fold._meter, "measure", lambda architecture: measured.append(architecture) or 1.0)
    found = list(fold.evaluate(tasks[:1], more=lambda: left.pop() if left else []))
    assert [done.task for done in found] == tasks
    assert measured == [path, (2,) * selection.n_blocks], "what was asked for late is measured as itself"
    with pytest.raises(InputError, match="needs a CUDA device"):
        SupernetFold(SupernetFolder(selection, SUPERNET), CPU, cost=MEMORY)
