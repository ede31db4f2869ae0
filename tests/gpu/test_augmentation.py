"""nnU-Net's policy on a GPU: as on the CPU, the same every time, without waiting for the host, small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_slicemamba.augmentation import Batch, Policy, translate
from nnunetv2_slicemamba.augmentation.noise import GaussianNoise
from nnunetv2_slicemamba.augmentation.recorded import Layout, RecordedPolicy

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
LABELS = (-1, 0, 1, 2)
# patch, patch that is read, slices by themselves, batch, channels
SIZES: dict[str, tuple[Any, ...]] = {
    "2d": ((256, 256), (301, 301), False, 20, 3),
    "3d": ((40, 56, 40), (64, 77, 64), False, 2, 1),
    "slices": ((10, 160, 160), (10, 188, 188), True, 2, 1),
}


def policy_of(size: str, **settings: Any) -> Policy:
    patch, _, slices, _, channels = SIZES[size]
    axes = len(patch)
    scales = [[1.0] * axes, [0.5] * axes]
    made = nnUNetTrainer.get_training_transforms(
        patch, (-0.5, 0.5), scales, tuple(range(axes)), slices, [True] * channels, foreground_labels=[1, 2], **settings
    )
    return translate(made, LABELS)


def batch_of(size: str, device: str, stages: int = 1) -> Batch:
    """Smooth images with blobs of three labels."""
    _, source, _, n, channels = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(n, channels + stages, *(s // 6 + 2 for s in source), generator=generator)
    mode = "bilinear" if len(source) == 2 else "trilinear"
    fine = torch.nn.functional.interpolate(coarse, source, mode=mode)
    seg = (fine[:, channels:] * 2).round().clamp(-1, 2).to(torch.int16)
    return Batch(fine[:, :channels].contiguous().to(device), seg.to(device))


@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_batches_are_those_of_the_cpu(size: str, cascade: bool) -> None:
    whole = policy_of(size, is_cascaded=cascade)
    # the noise itself is drawn on the device
    policy = Policy(tuple(step for step in whole.steps if not isinstance(step.twin, GaussianNoise)))
    for seed in range(3):
        made = [
            policy(batch_of(size, device, 1 + cascade), np.random.SeedSequence([seed])) for device in ("cpu", "cuda")
        ]
        extent = float(made[0].data.max() - made[0].data.min())
        difference = (made[0].data - made[1].data.cpu()).abs() / extent
        # the nearest voxel of the low resolution may be another one where it is a tie
        assert (difference > 1e-3).float().mean() < 1e-4
        for on_cpu, on_gpu in zip(made[0].seg, made[1].seg, strict=True):
            assert (on_cpu != on_gpu.cpu()).float().mean() < 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_the_same_seed_gives_the_same_bits(size: str) -> None:
    policy = policy_of(size)
    made = [policy(batch_of(size, "cuda"), np.random.SeedSequence([7])) for _ in range(2)]
    assert torch.equal(made[0].data, made[1].data)
    assert all(map(torch.equal, made[0].seg, made[1].seg))


@pytest.mark.parametrize("size", SIZES)
def test_the_host_does_not_wait(size: str) -> None:
    policy, batch = policy_of(size), batch_of(size, "cuda")
    policy(Batch(batch.data.clone(), batch.seg.clone()), np.random.SeedSequence([0]))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for seed in range(10):
            policy(Batch(batch.data.clone(), batch.seg.clone()), np.random.SeedSequence([seed]))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("size", SIZES)
def test_a_batch_takes_less_than_half_a_gibibyte_beside_itself(size: str) -> None:
    policy, batch = policy_of(size), batch_of(size, "cuda")
    for seed in range(12):
        if seed == 2:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        given = Batch(batch.data.clone(), batch.seg.clone())
        policy(given, np.random.SeedSequence([seed]))
        torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before < 2**29


def recorded_of(size: str) -> tuple[Policy, RecordedPolicy, Any]:
    """A policy, its graph, and what loads a seed's batch into it."""
    policy, batch = policy_of(size), batch_of(size, "cpu")
    layout = Layout.of(policy.arrays(batch.shape, np.random.SeedSequence(0)))
    recorded = RecordedPolicy(policy, batch, layout, torch.device("cuda"))
    pinned = [
        batch.data.pin_memory(),
        batch.seg.pin_memory(),
        torch.zeros(layout.bytes, dtype=torch.uint8).pin_memory(),
    ]

    def load(seed: int) -> None:
        torch.cuda.synchronize()
        layout.write(policy.arrays(batch.shape, np.random.SeedSequence([seed])), pinned[2].numpy())
        recorded.load(*pinned)

    return policy, recorded, load


@pytest.mark.parametrize("size", SIZES)
def test_a_graph_gives_the_bits_of_the_operations_one_by_one(size: str) -> None:
    policy, recorded, load = recorded_of(size)
    for seed in range(5):
        load(seed)
        made, wanted = recorded(), policy(batch_of(size, "cuda"), np.random.SeedSequence([seed]))
        assert torch.equal(made.data, wanted.data)
        assert all(map(torch.equal, made.seg, wanted.seg))
    # results are not overwritten by the next batch
    kept = made.data.clone()
    load(9)
    recorded()
    assert torch.equal(made.data, kept)


@pytest.mark.parametrize("size", SIZES)
def test_a_graph_takes_less_than_half_a_gibibyte(size: str) -> None:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    _, recorded, load = recorded_of(size)
    load(0)
    recorded()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() - before < 2**29
