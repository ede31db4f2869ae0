"""nnU-Net's loss in several processes: each computes its own share, and one message makes the Dice of all batches."""

from __future__ import annotations

from typing import Any

import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor, distributed, nn


class DiceSums(nn.Module):
    """Stands for nnU-Net's Dice in its loss: keeps this process's sums in `sums`, and is worth 0.

    `sums` gets one tensor of (3, classes) for every output: of prediction where the truth is, of prediction, of truth.
    They are nnU-Net's own, which it computes and exchanges in one method.
    """

    def __init__(self, dice: MemoryEfficientSoftDiceLoss) -> None:
        super().__init__()
        self.nonlin, self.do_bg = dice.apply_nonlin, dice.do_bg
        self.sums: list[Tensor] = []

    def forward(self, x: Tensor, y: Tensor, loss_mask: Tensor | None = None) -> Tensor:
        """x: (B, C, *spatial), what the network gives; y: labels of (B, 1, *spatial), or as many channels as x."""
        x = self.nonlin(x)
        with torch.no_grad():
            truth = y.float() if x.shape == y.shape else torch.zeros_like(x).float().scatter_(1, y.long(), 1)
        if not self.do_bg:
            x, truth = x[:, 1:], truth[:, 1:]
        if loss_mask is not None:
            x, truth = x * loss_mask, truth * loss_mask
        axes = (0, *range(2, x.ndim))
        self.sums.append(torch.stack([part.sum(axes, dtype=torch.float32) for part in (x * truth, x, truth)]))
        return torch.zeros((), device=x.device)


class OwnShare(nn.Module):
    """A process's share of the loss: [the loss without Dice, sums (outputs, 3, classes)]."""

    def __init__(self, loss: nn.Module, dice: DiceSums) -> None:
        super().__init__()
        self.loss, self.dice = loss, dice

    @property
    def weight_factors(self) -> Any:
        """The weights of the outputs under deep supervision; None without it."""
        return getattr(self.loss, "weight_factors", None)

    def forward(self, output: Any, target: Any) -> list[Tensor]:
        self.dice.sums = []
        value = self.loss(output, target)
        sums, self.dice.sums = torch.stack(self.dice.sums), []
        return [value, sums]


class SharedLoss(nn.Module):
    """nnU-Net's loss with a Dice over the batches of all processes, by one message a step.

    nnU-Net's sends three for every output, and two more for the gradients. Arguments and result are the loss's.
    Its gradients are those of nnU-Net's: averaged over the processes, they are the gradients of the whole batch. All
    processes must weigh the result alike, as one gradient scaler's scale does. `own` may be replaced by what gives the
    same, such as a recording.
    """

    loss: Any

    def __init__(self, loss: nn.Module, one: DC_and_CE_loss | DC_and_BCE_loss) -> None:
        super().__init__()
        dice: MemoryEfficientSoftDiceLoss = one.dc
        one.dc = DiceSums(dice)
        self.own: nn.Module = OwnShare(loss, one.dc)
        self.smooth, self.weight = float(dice.smooth), float(one.weight_dice)
        self.loss = loss
        self.factors: tuple[float, ...] = ()
        self.weights = torch.empty(0)

    def forward(self, output: Any, target: Any) -> Tensor:
        value, sums = self.own(output, target)
        both, predicted, truth = SumOverProcesses.apply(sums).unbind(1)
        dice = (2 * both + self.smooth) / (truth + predicted + self.smooth).clamp_min(1e-8)
        factors = (1.0,) if isinstance(output, Tensor) else tuple(self.loss.weight_factors)[: len(output)]
        return value - (self.weights_on(sums.device, factors) * dice.mean(1)).sum()

    def weights_on(self, device: torch.device, factors: tuple[float, ...]) -> Tensor:
        """The weight of every output's Dice that nnU-Net computes. factors: of all outputs under deep supervision."""
        if factors != self.factors or self.weights.device != device:
            self.factors, used = factors, [self.weight * factor for factor in factors if factor != 0]
            self.weights = torch.tensor(used, device=device, dtype=torch.float32)
        return self.weights


class SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes, which go on with it in the same way.

    It is the same in all of them, and so is its gradient: the sum of all gradients needs no second message.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        gathered = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
        # added up here: in one order, for the same bits in all processes
        distributed.all_gather(gathered, x.contiguous())
        return torch.stack(gathered).sum(0)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        return grad_output * distributed.get_world_size()


def communicates(part: nn.Module) -> bool:
    """True if a part of a loss is nnU-Net's Dice over the batches of several processes."""
    return bool(getattr(part, "ddp", False) and getattr(part, "batch_dice", False))


def shared(loss: nn.Module) -> nn.Module:
    """The loss as a SharedLoss where it is nnU-Net's own with a Dice over several processes; else the loss itself."""
    one: Any = loss.loss if type(loss) is DeepSupervisionWrapper else loss
    dice: Any = getattr(one, "dc", None)
    known = type(one) in (DC_and_CE_loss, DC_and_BCE_loss) and type(dice) is MemoryEfficientSoftDiceLoss
    return SharedLoss(loss, one) if known and communicates(dice) and one.weight_dice != 0 else loss
