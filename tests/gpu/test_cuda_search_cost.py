"""Latency and peak memory of a path on a GPU: repeatable, and no matter of what lies there. Needs an NVIDIA GPU."""

from __future__ import annotations

import pytest
import torch

from nnunetv2_slicemamba.nets import SliceMambaSupernet
from nnunetv2_slicemamba.search.evaluation.cost_measurement import CostMeter
from nnunetv2_slicemamba.search.objectives import Cost

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
MEMORY, LATENCY = Cost("memory", True), Cost("latency", True)


@pytest.fixture(scope="module")
def network() -> SliceMambaSupernet:
    torch.manual_seed(0)
    strides = [[4, 4], [2, 2], [2, 2]]
    return SliceMambaSupernet(1, 2, 3, [24, 48, 96], strides, [2, 2, 1], [1, 1, 1]).eval().cuda()


def meter(network: SliceMambaSupernet, size: int, cost: Cost) -> CostMeter:
    return CostMeter(network, 1, (size, size), torch.device("cuda"), cost)


def test_peak_memory_is_the_same_whatever_lies_on_the_gpu(network: SliceMambaSupernet) -> None:
    path = (1,) * network.n_blocks
    alone = meter(network, 256, MEMORY).measure(path)
    kept = torch.zeros(64 * 2**20, device="cuda")  # 256 MiB
    assert meter(network, 256, MEMORY).measure(path) == pytest.approx(alone, rel=0.02)
    del kept
    weights = sum(p.numel() * p.element_size() for p in network.extract(path).parameters()) / 2**20
    assert alone > weights + 256 * 256 * 4 / 2**20, "weights and input are the least"


def test_a_larger_patch_needs_more_memory_and_time(network: SliceMambaSupernet) -> None:
    path = (2,) * network.n_blocks
    small, large = (meter(network, size, MEMORY).measure(path) for size in (128, 512))
    assert large > 2 * small
    small, large = (meter(network, size, LATENCY).measure(path) for size in (64, 2048))
    assert 0 < small < large


def test_work_that_was_sent_before_does_not_count(network: SliceMambaSupernet) -> None:
    path = (0,) * network.n_blocks
    own = meter(network, 128, LATENCY)
    alone = own.measure(path)
    factor = torch.randn(8192, 8192, device="cuda")
    for _ in range(20):
        factor = factor @ factor  # far longer than the network's pass
    assert own.measure(path) < 3 * alone + 5
