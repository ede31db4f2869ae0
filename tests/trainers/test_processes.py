"""A supernet trained by two processes is the one that a single process trains on both batches; they stop together.

nnU-Net's own trainer knows several processes only on GPUs, so these are the trainer's averages, with gloo.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.trainers import ddp_step


@pytest.mark.timeout(120)
def test_two_processes_follow_the_same_paths_to_the_weights_of_one_and_stop_together(tmp_path: Path) -> None:
    script, store, out = Path(ddp_step.__file__), tmp_path / "store", tmp_path / "result"
    started = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(store), str(out)], stderr=subprocess.PIPE)
        for rank in range(ddp_step.PROCESSES)
    ]
    for process in started:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()[-3000:]
    results = [torch.load(f"{out}.{rank}") for rank in range(ddp_step.PROCESSES)]

    # one of them got a signal: both stopped after the same step, and the first one wrote the last finished epoch
    assert [result["stopped"] for result in results] == [(2, 143), (2, 143)]
    assert [file.name for file in tmp_path.glob("*.saved")] == ["result.0.saved"]
    assert (tmp_path / "result.0.saved").read_text() == f"{Path('folder', 'checkpoint_latest.pth')} 6"

    supernet = ddp_step.make_network()
    before = {key: value.clone() for key, value in supernet.state_dict().items()}
    paths = ddp_step.train(supernet, supernet, slice(None))
    assert [result["paths"] for result in results] == [paths, paths]
    moved = 0
    for key, value in supernet.state_dict().items():
        assert torch.equal(results[0]["weights"][key], results[1]["weights"][key]), key
        assert torch.allclose(results[0]["weights"][key], value, atol=2e-5), key
        moved += not torch.allclose(value, before[key], atol=2e-4)
    assert moved > 20
