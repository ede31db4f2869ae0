"""nnU-Net's loss as a CUDA graph: under deep supervision it is hundreds of kernels, which a host starts slowly."""

from __future__ import annotations

import logging
from typing import Any

import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss
from torch import Tensor, nn
from torch._dynamo import OptimizedModule

from nnunetv2_slicemamba.common.library_errors import first_line
from nnunetv2_slicemamba.nets.cuda_graphs import Outputs, TrainingGraph, as_list, switched_off
from nnunetv2_slicemamba.trainers.seeded import RepeatableCrossEntropy
from nnunetv2_slicemamba.trainers.shared_loss import DiceSums, OwnShare, SharedLoss, communicates

log = logging.getLogger(__name__)
# losses whose value depends on nothing but their arguments: others may change from epoch to epoch
KNOWN: tuple[type, ...] = (
    *(DeepSupervisionWrapper, DC_and_CE_loss, DC_and_BCE_loss, MemoryEfficientSoftDiceLoss, OptimizedModule),
    *(RobustCrossEntropyLoss, RepeatableCrossEntropy, nn.BCEWithLogitsLoss),
    *(OwnShare, DiceSums),
)


def can_be_recorded(loss: nn.Module) -> bool:
    """True for nnU-Net's own losses without an ignored label, which is looked for on the host, and without messages."""
    return all(
        type(part) in KNOWN
        and not communicates(part)
        and getattr(part, "ignore_label", None) is None
        and not getattr(part, "use_ignore_label", False)
        for part in loss.modules()
    )


class RecordedLoss(nn.Module):
    """A loss on a GPU that replays a CUDA graph of its own once it has been asked for gradients.

    Arguments and result are the loss's, or an OwnShare's. What cannot be recorded is computed as without it.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        self.graph: TrainingGraph | None = None
        self.recorded: Any = None
        self.plain = switched_off() or not can_be_recorded(loss)

    def forward(self, output: Outputs, target: Outputs) -> Outputs:
        inputs = [*as_list(output), *as_list(target)]
        if self.plain:
            return self.loss(output, target)
        state = isinstance(output, Tensor), getattr(self.loss, "weight_factors", None)
        if self.graph is None and torch.is_grad_enabled():
            self._record(inputs, len(as_list(output)), state[0])
            self.recorded = state
        if self.graph is None or self.recorded != state or not self.graph.can_replay(*inputs):
            return self.loss(output, target)
        result = self.graph(*inputs)
        # the graph's own memory: the next batch's loss is written there
        return result.clone() if isinstance(result, Tensor) else [one.clone() for one in result]

    def _record(self, inputs: list[Tensor], outputs: int, single: bool) -> None:
        def call(*tensors: Tensor) -> Outputs:
            if single:
                return self.loss(*tensors)
            return self.loss(list(tensors[:outputs]), list(tensors[outputs:]))

        try:
            self.graph = TrainingGraph(self.loss, call, inputs)
        except RuntimeError as error:
            log.warning("the loss is computed without a CUDA graph, which could not be recorded: %s", first_line(error))
            self.plain = True


def recorded(loss: nn.Module) -> nn.Module:
    """The loss with what it computes in this process recorded."""
    if isinstance(loss, SharedLoss):
        loss.own = RecordedLoss(loss.own)
        return loss
    return RecordedLoss(loss)
