"""The whole network's training steps give the same bits every time. Needs an NVIDIA GPU."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nnunetv2_slicemamba.ops.cuda_scan import unavailable_reason

REASON = unavailable_reason(torch.device("cuda"), torch.float16)
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"the CUDA backend cannot run: {REASON}")
SCRIPT = """
import hashlib, sys, torch
from nnunetv2_slicemamba.nets import SliceMambaUNet
from nnunetv2_slicemamba.nets import training_graphs
torch.use_deterministic_algorithms(True)
settings = eval(sys.argv[1])
digests = set()
for attempt in range(20):
    torch.manual_seed(0)
    network = SliceMambaUNet(**settings, deep_supervision=True).cuda().train()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)
    n = network.n_dims
    x = torch.randn(2, 1, *(32, 48, 32)[:n], device="cuda")
    if attempt % 2:
        with torch.autocast("cuda"):
            training_graphs.record(network, x)
    torch.cuda.manual_seed(1)
    for _ in range(2):
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cuda"):
            loss = sum(o.float().square().mean() for o in network(x))
        loss.backward()
        optimiser.step()
    digest = hashlib.sha256()
    for p in network.parameters():
        digest.update(p.detach().cpu().numpy().tobytes())
    digests.add(digest.hexdigest())
print(len(digests))
"""
COMMON = {"input_channels": 1, "num_classes": 3, "n_stages": 2, "features_per_stage": [24, 48]}
NETWORKS = {
    "2d": {"strides": [[4, 4], [2, 2]], "n_blocks_per_stage": [1, 2], "n_blocks_per_stage_decoder": [1, 1]},
    "3d": {"strides": [[2, 2, 2], [2, 2, 2]], "n_blocks_per_stage": [1, 1], "n_blocks_per_stage_decoder": [1, 1]},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_20_runs_end_with_the_same_weights(name):
    """Under torch.use_deterministic_algorithms, every other run by CUDA graphs."""
    environment = {
        **os.environ,
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONPATH": ":".join(p for p in sys.path if p),
    }
    settings = repr({**COMMON, **NETWORKS[name], "drop_path_rate": 0.2})
    command = [sys.executable, "-c", SCRIPT, settings]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "1"


@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="compute-sanitizer is not installed")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_finds_nothing_in_blocks_and_norms(tool):
    script = Path(__file__).with_name("sanitize_bss.py")
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    said = done.stdout + done.stderr
    assert "SUMMARY" in said, said[-4000:]
    if tool == "racecheck" and done.returncode == 9:
        # racecheck does not see the barriers by which cuBLAS's own kernels for compute capability 9.0 synchronise
        kernels = set(re.findall(r"access at (\S+?)\+0x", said))
        assert kernels, said[-4000:]
        assert all(kernel.startswith("nvjet") for kernel in kernels), said[-4000:]
    else:
        assert done.returncode == 0, said[-4000:]
