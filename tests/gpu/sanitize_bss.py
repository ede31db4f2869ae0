"""Small S3 blocks and instance norms, forward and backward, to run under a checker:

compute-sanitizer --tool memcheck python tests/gpu/sanitize_bss.py
compute-sanitizer --tool racecheck python tests/gpu/sanitize_bss.py
"""

from __future__ import annotations

import torch

from nnunetv2_slicemamba.nets import S3Block
from nnunetv2_slicemamba.ops.instance_norm import instance_norm_leaky_relu

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

NORMS = (  # shape, type: one launch and two, aligned, idle threads, odd channels, 3D
    ((2, 40, 5, 7), torch.float16),
    ((2, 32, 40, 50), torch.float16),
    ((1, 13, 40, 30), torch.bfloat16),
    ((1, 24, 12, 10, 11), torch.float32),
)

for shape, dtype in NORMS:
    last = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    x = torch.randn(shape, device="cuda").to(dtype).contiguous(memory_format=last).requires_grad_()
    weight, bias = (torch.randn(shape[1], device="cuda", requires_grad=True) for _ in range(2))
    instance_norm_leaky_relu(x, weight, bias).float().square().sum().backward()
    assert all(t.grad.isfinite().all() for t in (x, weight, bias))
torch.cuda.synchronize()
