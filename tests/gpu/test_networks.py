"""Whole networks on a GPU compute what they compute on the CPU in float64. Needs an NVIDIA GPU."""

from __future__ import annotations

import copy

import pytest
import torch

from nnunetv2_slicemamba.nets import SlicedNetwork, SliceMambaResidualUNet, SliceMambaUNet
from nnunetv2_slicemamba.ops.cuda_scan import unavailable_reason

REASON = unavailable_reason(torch.device("cuda"), torch.float16)
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"the CUDA backend cannot run: {REASON}")
COMMON = {"n_stages": 3, "features_per_stage": [16, 32, 48], "n_blocks_per_stage": [1, 1, 1]}
COMMON |= {"n_blocks_per_stage_decoder": [1, 1, 1], "drop_path_rate": 0.0, "deep_supervision": True}
STRIDES = {"2d": [[4, 4], [2, 2], [2, 2]], "3d": [[1, 4, 4], [2, 2, 2], [1, 2, 2]]}
SIZES = {"2d": (3, 2, 72, 48), "3d": (1, 2, 10, 40, 32)}
OPTIONS = {
    "paper": {},
    "hybrid": {"stem_features": [8, 12]},
    "concatenated": {"stem_features": [8, 12], "skip": "concatenate"},
    "embedding skip": {"embedding_skip": True},
}
RESIDUAL = {
    **{"n_stages": 3, "features_per_stage": [16, 32, 48], "deep_supervision": True, "d_state": 4},
    **{"n_conv_per_stage": [2, 1, 2], "n_conv_per_stage_decoder": [1, 2]},
    **{"n_blocks_per_stage": [0, 1, 2], "n_blocks_per_stage_decoder": [1, 0]},
}
RESIDUAL_STRIDES = {"2d": [[1, 1], [2, 2], [2, 2]], "3d": [[1, 1, 1], [1, 2, 2], [2, 2, 2]]}
RESIDUAL_OPTIONS = {
    "residual": {},
    "residual, normalised": {"normalise_scan": True},
    "residual, no scan": {"scan": False},
}


def build(options: str, dims: str) -> SlicedNetwork:
    channels = SIZES[dims][0]
    if options in OPTIONS:
        return SliceMambaUNet(channels, 2, **COMMON, strides=STRIDES[dims], **OPTIONS[options])
    strides = RESIDUAL_STRIDES[dims]
    shape = {**RESIDUAL, "strides": strides, "kernel_sizes": [[3] * len(strides[0])] * 3}
    network = SliceMambaResidualUNet(channels, 2, **shape, **RESIDUAL_OPTIONS[options])
    for name, parameter in network.named_parameters():
        if name.endswith("out_proj.weight"):
            torch.nn.init.normal_(parameter, std=0.05)
    return network


def gradients(network: SlicedNetwork, x: torch.Tensor, scale: float = 1.0) -> tuple[list, dict[str, torch.Tensor]]:
    outputs = network(x)
    loss = sum((o - 1).square().mean() for o in (o.to(x.dtype) for o in outputs))
    (scale * loss).backward()
    found = {name: p.grad.cpu().double() / scale for name, p in network.named_parameters() if p.grad is not None}
    return [o.detach().cpu().double() for o in outputs], found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("dims", STRIDES)
@pytest.mark.parametrize("options", [*OPTIONS, *RESIDUAL_OPTIONS])
def test_outputs_and_gradients_are_the_cpus(options: str, dims: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    channels, batch, *sizes = SIZES[dims]
    plain = build(options, dims).train()
    x = torch.randn(batch, channels, *sizes)
    on_gpu = copy.deepcopy(plain).cuda()
    wanted, expected = gradients(plain.double(), x.double())
    half = dtype == torch.float16
    with torch.autocast("cuda", enabled=half), torch.backends.cudnn.flags(allow_tf32=False):
        got, found = gradients(on_gpu, x.cuda(), 1024.0 if half else 1.0)
    tolerance = 3e-2 if half else 1e-4
    assert all(((g - w).norm() / w.norm()).item() < tolerance for g, w in zip(got, wanted, strict=True))
    assert found.keys() == expected.keys()
    # what InstanceNorm takes back, and what is small beside the rest, is rounding
    least = (1e-2 if half else 1e-3) * max(value.norm() for value in expected.values())
    errors = {name: ((found[name] - s).norm() / max(s.norm(), least)).item() for name, s in expected.items()}
    worst = max(errors, key=errors.__getitem__)
    # an RMSNorm divides by what is near 0 in places: float32 on the CPU is off by 3 % too
    assert errors[worst] < (0.2 if half else 0.1 if "normalised" in options else 1e-2), (worst, errors[worst])
