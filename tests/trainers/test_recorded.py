"""Losses and networks that replay graphs: when they do, and what happens where they cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import distributed, nn

from nnunetv2_slicemamba.trainers.recorded_loss import RecordedLoss, can_be_recorded, recorded
from nnunetv2_slicemamba.trainers.recorded_network import RecordedNetwork
from nnunetv2_slicemamba.trainers.replicas import as_dense, average_gradients
from nnunetv2_slicemamba.trainers.seeded import made_repeatable
from nnunetv2_slicemamba.trainers.shared_loss import SharedLoss, shared
from tests.nets.cuda_stand_in import Cuda

DICE: dict[str, Any] = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return Cuda(monkeypatch)


def of_labels(ignored: int | None = None, **dice: Any) -> nn.Module:
    loss = DC_and_CE_loss(DICE | dice, {}, ignore_label=ignored, dice_class=MemoryEfficientSoftDiceLoss)
    return DeepSupervisionWrapper(loss, (0.7, 0.3))


def of_regions(ignores: bool) -> nn.Module:
    return DC_and_BCE_loss({}, DICE, use_ignore_label=ignores, dice_class=MemoryEfficientSoftDiceLoss)


class Annealed(DC_and_CE_loss):
    """Somebody's loss, which changes with the epoch."""


def test_losses_that_depend_on_their_arguments_alone_are_recorded() -> None:
    assert can_be_recorded(of_labels())
    assert can_be_recorded(made_repeatable(of_labels()))
    assert can_be_recorded(of_regions(ignores=False))
    assert not can_be_recorded(of_labels(ignored=3))
    assert not can_be_recorded(of_regions(ignores=True))
    assert not can_be_recorded(Annealed(DICE, {}, dice_class=MemoryEfficientSoftDiceLoss))


def batch(size: int = 8) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    torch.manual_seed(0)
    logits = [torch.randn(2, 3, s, s, requires_grad=True) for s in (size, size // 2)]
    return logits, [torch.randint(0, 3, (2, 1, *x.shape[2:])) for x in logits]


def test_a_loss_replays_what_it_recorded_at_the_first_training_step(cuda: Cuda) -> None:
    plain, loss = of_labels(), RecordedLoss(of_labels())
    with torch.no_grad():
        loss(*batch())
    assert not cuda.recorded
    value = loss(*batch())
    assert cuda.recorded == 2  # forwards and backwards
    assert torch.equal(value, plain(*batch()))
    value.backward()
    with torch.no_grad():
        assert torch.equal(loss(*batch()), value)
    assert cuda.replays == 3
    assert torch.equal(loss(*batch(12)), plain(*batch(12)))
    assert cuda.replays == 3


def test_changed_weights_of_the_outputs_are_not_replayed(cuda: Cuda) -> None:
    loss, plain = RecordedLoss(of_labels()), of_labels()
    loss(*batch()).backward()
    loss.loss.weight_factors = plain.weight_factors = (0.0, 1.0)
    assert torch.equal(loss(*batch()), plain(*batch()))
    assert cuda.replays == 2


def test_a_loss_that_cannot_be_recorded_is_computed(cuda: Cuda, caplog: pytest.LogCaptureFixture) -> None:
    cuda.failing = RuntimeError("the host waits")
    loss = RecordedLoss(of_labels())
    for _ in range(2):
        assert torch.equal(loss(*batch()), of_labels()(*batch()))
    assert caplog.text.count("the host waits") == 1


def test_a_network_replays_passes_like_its_first_one(cuda: Cuda) -> None:
    plain = nn.Conv2d(1, 2, 3)
    network = RecordedNetwork(plain)
    x = torch.ones(1, 1, 8, 8)
    assert torch.equal(network(x), plain(x))
    assert (cuda.recorded, cuda.replays) == (2, 1)
    network(torch.ones(2, 1, 8, 8))
    assert (cuda.recorded, cuda.replays) == (2, 1)
    assert network.reason is None


def test_of_a_loss_of_several_processes_what_each_computes_alone_is_recorded(cuda: Cuda) -> None:
    assert not can_be_recorded(of_labels(ddp=True))
    plain, loss = shared(of_labels(ddp=True)), recorded(shared(made_repeatable(of_labels(ddp=True))))
    assert isinstance(plain, SharedLoss)
    assert isinstance(loss, SharedLoss)
    for expected, got in zip(plain.own(*batch()), loss.own(*batch()), strict=True):
        assert torch.allclose(expected, got)
    assert (cuda.recorded, cuda.replays) == (2, 1)


@pytest.mark.parametrize("dice", [{"ddp": False}, {"ddp": True, "batch_dice": False}])
def test_a_loss_without_messages_is_recorded_as_a_whole(dice: dict[str, bool], cuda: Cuda) -> None:
    plain = of_labels(**dice)
    loss = recorded(shared(plain))
    assert isinstance(loss, RecordedLoss)
    assert torch.equal(loss(*batch()), plain(*batch()))
    assert (cuda.recorded, cuda.replays) == (2, 1)


def test_somebodys_loss_stays_as_it_is() -> None:
    for loss in (Annealed(DICE | {"ddp": True}, {}, dice_class=MemoryEfficientSoftDiceLoss), nn.MSELoss()):
        assert shared(loss) is loss


@pytest.mark.parametrize("cause", ["failing", "switched off"])
def test_a_network_without_a_graph_says_why(cause: str, cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    if cause == "failing":
        cuda.failing = RuntimeError("no memory")
    else:
        monkeypatch.setenv("SLICEMAMBA_GRAPHS", "0")
    plain = nn.Conv2d(1, 2, 3)
    network = RecordedNetwork(plain)
    assert torch.equal(network(torch.ones(1, 1, 8, 8)), plain(torch.ones(1, 1, 8, 8)))
    assert ("no memory" if cause == "failing" else "SLICEMAMBA_GRAPHS") in str(network.reason)


def test_tensors_are_dense_in_any_order_of_axes() -> None:
    x = torch.arange(24.0).view(2, 3, 2, 2)
    for dense in (x, x.contiguous(memory_format=torch.channels_last), x.transpose(0, 1), x[1:]):
        assert as_dense(dense) is dense
    for gaps in (x[:, 1:], x[:1, :1].expand(2, 3, 2, 2)):
        copied = as_dense(gaps)
        assert copied.is_contiguous()
        assert torch.equal(copied, gaps)


def test_averages_begin_where_a_gpu_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "all_reduce", lambda together: together.mul_(3))
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    parameters = [nn.Parameter(torch.zeros(n)) for n in (2, 8, 3, 16, 5, 64)]
    for parameter in parameters[1:]:
        parameter.grad = torch.randn(parameter.shape)
    expected = [None, *(1.5 * p.grad for p in parameters[1:] if p.grad is not None)]
    average_gradients(parameters)
    for parameter, value in zip(parameters, expected, strict=True):
        assert (parameter.grad is None) == (value is None)
        if parameter.grad is not None:
            assert torch.allclose(parameter.grad, value)
            assert len(parameter) % 4 or parameter.grad.data_ptr() % 16 == 0
