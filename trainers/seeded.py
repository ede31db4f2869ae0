"""Trainings that can be repeated: SLICEMAMBA_SEED seeds all that a trainer draws."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cached_property

import torch.distributed
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_slicemamba.augmentation.seeds import (
    ENVIRONMENT_VARIABLE,
    Use,
    deterministic,
    seed_from_environment,
    seed_generators,
    sequence,
)


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
        super().initialize()

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
