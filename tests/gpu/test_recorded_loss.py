"""nnU-Net's loss by a CUDA graph is its loss, and so are its gradients. Needs an NVIDIA GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import distributed, nn

from nnunetv2_slicemamba.trainers.recorded_loss import RecordedLoss, recorded
from nnunetv2_slicemamba.trainers.shared_loss import SharedLoss, shared

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
SIZES = [(64, 48), (32, 24), (16, 12)]


def loss_of(kind: str, ddp: bool = False) -> nn.Module:
    dice: dict[str, Any] = {"batch_dice": True, "smooth": 1e-5, "do_bg": kind == "regions", "ddp": ddp}
    if kind == "regions":
        one: nn.Module = DC_and_BCE_loss({}, dice, use_ignore_label=False, dice_class=MemoryEfficientSoftDiceLoss)
    else:
        ignored = 3 if kind == "ignored" else None
        one = DC_and_CE_loss(dice, {}, ignore_label=ignored, dice_class=MemoryEfficientSoftDiceLoss)
    return DeepSupervisionWrapper(one, (0.6, 0.3, 0.1))


def batch(kind: str, seed: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    torch.manual_seed(seed)
    logits = [torch.randn(2, 3, *size, device="cuda").half().requires_grad_() for size in SIZES]
    if kind == "regions":
        return logits, [torch.rand(2, 3, *size, device="cuda") < 0.3 for size in SIZES]
    highest = 4 if kind == "ignored" else 3
    return logits, [torch.randint(0, highest, (2, 1, *size), device="cuda", dtype=torch.int16) for size in SIZES]


def compare(kind: str, plain: nn.Module, other: nn.Module) -> None:
    """Values and gradients of two losses are the same, from step to step."""
    for seed in range(4):
        made = []
        for loss in (plain, other):
            logits, targets = batch(kind, seed)
            with torch.autocast("cuda"):
                value = loss(logits, targets)
            (value * 1024).backward()
            made.append((value.detach(), [x.grad for x in logits]))
        assert torch.allclose(made[0][0], made[1][0], rtol=1e-6)
        for expected, gradient in zip(made[0][1], made[1][1], strict=True):
            assert torch.allclose(expected, gradient, rtol=1e-3, atol=1e-6)
            assert gradient.abs().max() > 0


@pytest.mark.parametrize("kind", ["labels", "regions", "ignored"])
def test_values_and_gradients(kind: str) -> None:
    loss = RecordedLoss(loss_of(kind))
    compare(kind, loss_of(kind), loss)
    # a label that is ignored is looked for on the host
    assert (loss.graph is None) == (kind == "ignored")


@pytest.mark.parametrize("kind", ["labels", "regions", "ignored"])
def test_values_and_gradients_of_a_loss_that_processes_share(kind: str) -> None:
    distributed.init_process_group("nccl", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        loss = recorded(shared(loss_of(kind, ddp=True)))
        compare(kind, loss_of(kind, ddp=True), loss)
    finally:
        distributed.destroy_process_group()
    assert isinstance(loss, SharedLoss)
    assert isinstance(loss.own, RecordedLoss)
    assert (loss.own.graph is None) == (kind == "ignored")


def test_validation_gets_the_value_and_other_shapes_are_computed_plainly() -> None:
    plain, loss = loss_of("labels"), RecordedLoss(loss_of("labels"))
    with torch.autocast("cuda"):
        logits, targets = batch("labels", 0)
        loss(logits, targets).backward()
        with torch.no_grad():
            logits, targets = batch("labels", 1)
            assert torch.allclose(loss(logits, targets), plain(logits, targets), rtol=1e-6)
            halves = [x[:1] for x in logits], [x[:1] for x in targets]
            assert torch.allclose(loss(*halves), plain(*halves), rtol=1e-6)
        loss.loss.weight_factors = (1.0, 0.0, 0.0)
        plain.weight_factors = (1.0, 0.0, 0.0)
        logits, targets = batch("labels", 2)
        assert torch.allclose(loss(logits, targets), plain(logits, targets), rtol=1e-6)
