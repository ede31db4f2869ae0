"""Small S3 blocks, forward and backward, to run under a checker:

compute-sanitizer --tool memcheck python tests/gpu/sanitize_bss.py
compute-sanitizer --tool racecheck python tests/gpu/sanitize_bss.py
"""

from __future__ import annotations

import torch

from nnunetv2_slicemamba.nets import S3Block

CASES = (  # batch, sizes, channels, type: aligned, odd sizes and channels, 3D, several warps per token
    (2, (8, 12), 32, torch.float16),
    (1, (5, 7), 13, torch.float32),
    (1, (3, 4, 5), 24, torch.bfloat16),
    (1, (4, 4), 384, torch.float16),
)

for batch, sizes, channels, dtype in CASES:
    block = S3Block(channels, len(sizes), (2,) * len(sizes)).cuda()
    x = torch.randn(batch, *sizes, channels, device="cuda", requires_grad=True)
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        out = block(x)
    out.backward(torch.randn_like(out))
    assert all(p.grad.isfinite().all() for p in block.parameters())
torch.cuda.synchronize()
