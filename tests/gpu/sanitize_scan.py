"""Small scans, forward and backward, to run under a checker:

    compute-sanitizer --tool memcheck python tests/gpu/sanitize_scan.py
    compute-sanitizer --tool racecheck python tests/gpu/sanitize_scan.py

An argument limits how many of the cases run.
"""

from __future__ import annotations

import sys

import torch

from nnunetv2_slicemamba.ops.cuda_scan import scan
from tests.gpu.scan_cases import make_inputs, run

CASES = (  # batch, sizes, E, N, type, rank: aligned, tails and chunks, other numbers of states, unaligned
    (2, (8, 9), 64, 16, torch.float16, 8),
    (1, (10, 33), 72, 16, torch.float16, None),
    (1, (5, 9, 7), 33, 5, torch.float32, 3),
    (1, (11, 13), 40, 32, torch.bfloat16, None),
    (1, (6, 6), 64, 1, torch.float16, None),
)

for case in CASES[: int(sys.argv[1]) if len(sys.argv) > 1 else None]:
    batch, sizes, E, N, dtype, rank = case
    inputs = make_inputs(batch, sizes, E, N, dtype, rank)
    results = run(scan, inputs, sizes, (2,) * len(sizes), torch.randn_like(inputs["x"]))
    assert all(value.isfinite().all() for value in results.values())
torch.cuda.synchronize()
