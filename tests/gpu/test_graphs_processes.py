"""CUDA graphs in several processes train what one process trains without. Needs an NVIDIA GPU.

Two processes share one GPU by gloo. NCCL wants a GPU for every process: one process has a thread that watches its
communication while graphs are recorded, two need a machine with two GPUs.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nnunetv2_slicemamba.ops.cuda_scan import unavailable_reason
from tests.gpu import graphs_step

REASON = unavailable_reason(torch.device("cuda"), torch.float16)
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"the CUDA backend cannot run: {REASON}")


@pytest.mark.parametrize(("backend", "processes"), [("gloo", 2), ("nccl", 1), ("nccl", 2)])
@pytest.mark.parametrize("kind", graphs_step.KINDS)
def test_processes_that_replay_graphs_train_what_one_without_trains(
    kind: str, backend: str, processes: int, tmp_path: Path
) -> None:
    if backend == "nccl" and processes > torch.cuda.device_count():
        pytest.skip(f"{processes} processes with NCCL need {processes} GPUs")
    script, store, out = graphs_step.__file__, str(tmp_path / "store"), str(tmp_path / "result")
    started = [
        subprocess.Popen(
            [sys.executable, script, backend, str(processes), str(rank), store, out, kind], stderr=subprocess.PIPE
        )
        for rank in range(processes)
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=100)
            assert process.returncode == 0, errors.decode()[-3000:]
    finally:
        for process in started:
            process.kill()
    results = [torch.load(f"{out}.{rank}", map_location="cuda") for rank in range(processes)]
    assert all(result["replays"] >= graphs_step.ITERATIONS // 2 for result in results)

    network = graphs_step.make_network(kind)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    losses = graphs_step.train(network, network, slice(None))
    means = [sum(shares) / processes for shares in zip(*(result["losses"] for result in results), strict=True)]
    # halves of a batch add in another order, which shows in what little is left of the loss
    assert means == pytest.approx(losses, rel=1e-3, abs=1e-4 * losses[0])
    assert losses[-1] < losses[0]
    moved = 0
    for key, value in network.state_dict().items():
        first, *others = (result["weights"][key] for result in results)
        assert all(torch.equal(first, other) for other in others), key
        if value.is_floating_point() and not torch.equal(value, before[key]):
            moved += 1
            assert (first - value).norm() <= 0.02 * (value - before[key]).norm() + 1e-6, key
    assert moved > 20
