"""Trainings that can be repeated: SLICEMAMBA_SEED seeds all that a trainer draws."""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import cached_property

import torch.distributed
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nnunetv2_slicemamba.augmentation.seeds import (
    ENVIRONMENT_VARIABLE,
    Use,
    deterministic,
    seed_from_environment,
    seed_generators,
    sequence,
)


class RepeatableCrossEntropy(RobustCrossEntropyLoss):
    """nnU-Net's cross entropy, whose mean PyTorch would add up in another order every time on a GPU."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        labels = target[:, 0].long() if target.ndim == input.ndim else target.long()
        losses = cross_entropy(input, labels, ignore_index=self.ignore_index, reduction="none")
        return losses.sum() / (labels != self.ignore_index).sum()


def made_repeatable(loss: nn.Module) -> nn.Module:
    """The loss with RepeatableCrossEntropy in the place of nnU-Net's."""
    for module in loss.modules():
        for name, part in module.named_children():
            plain = type(part) is RobustCrossEntropyLoss and part.weight is None and part.label_smoothing == 0
            if plain and part.reduction == "mean":
                setattr(module, name, RepeatableCrossEntropy(ignore_index=part.ignore_index))
    return loss


class SeededTraining(nnUNetTrainer):
    """nnU-Net's trainer, which with SLICEMAMBA_SEED draws weights and what training steps draw from that seed.

    Every draw is a function of the seed, the iteration and the rank, so a continued training repeats one that was never
    stopped.
    """

    steps_in_epoch = 0

    @cached_property
    def seed(self) -> int | None:
        """SLICEMAMBA_SEED as it was when first asked for; None without it."""
        return seed_from_environment()

    def initialize(self) -> None:
        if self.seed is not None:
            seed_generators(sequence(self.seed, Use.WEIGHTS))
            # what cuBLAS needs to give the same result every time; read when it is first used
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        super().initialize()

    def _build_loss(self) -> nn.Module:
        loss = super()._build_loss()
        return loss if self.seed is None else made_repeatable(loss)

    def run_training(self) -> None:
        with nullcontext() if self.seed is None else deterministic():
            super().run_training()

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.seed is not None:
            self.print_to_log_file(
                f"weights, batches and training steps are drawn from {ENVIRONMENT_VARIABLE}={self.seed}"
            )

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.steps_in_epoch = 0

    def train_step(self, batch: dict) -> dict:
        if self.seed is not None:
            rank = torch.distributed.get_rank() if self.is_ddp else 0
            iteration = self.current_epoch * self.num_iterations_per_epoch + self.steps_in_epoch
            seed_generators(sequence(self.seed, Use.STEPS, rank, iteration))
        result = super().train_step(batch)
        self.steps_in_epoch += 1
        return result
