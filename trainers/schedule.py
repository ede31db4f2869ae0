"""Learning rate over iterations: linear warm-up, then nnU-Net's polynomial decay."""

from __future__ import annotations

from dataclasses import dataclass

from torch.optim import Optimizer

from nnunetv2_slicemamba.trainers.parameter_groups import RATE_FACTOR


@dataclass(frozen=True)
class WarmupPoly:
    """lr(i) = initial_lr * min(1, (i + 1) / warmup) * (1 - i / total) ** exponent, i in iterations.

    A pure function of the iteration, so that a continued training follows the same curve. Raises ValueError if
    `total` or `warmup` is below 1.
    """

    initial_lr: float
    warmup: int
    total: int
    exponent: float = 0.9

    def __post_init__(self) -> None:
        if self.total < 1 or self.warmup < 1:
            raise ValueError(f"warm-up {self.warmup} and total {self.total} iterations must be at least 1")

    def __call__(self, iteration: int) -> float:
        left = max(0.0, 1 - iteration / self.total)
        return self.initial_lr * min(1.0, (iteration + 1) / self.warmup) * left**self.exponent


class IterationScheduler:
    """A scheduler as nnU-Net calls it (`step(epoch)` as an epoch starts), with a step per iteration besides."""

    def __init__(self, optimizer: Optimizer, schedule: WarmupPoly, iterations_per_epoch: int) -> None:
        self.optimizer, self.schedule, self.iterations_per_epoch = optimizer, schedule, iterations_per_epoch

    def keep_rates_of_groups(self) -> None:
        """Takes learning rates that groups have now for multiples of the schedule's initial one.

        Called before the first step, so that rates which a subclass gave its groups are not written over. Checkpoints
        have the multiples, too.
        """
        for group in self.optimizer.param_groups:
            group.setdefault(RATE_FACTOR, 1.0)
            if group["lr"] != self.schedule.initial_lr:
                group[RATE_FACTOR] *= group["lr"] / self.schedule.initial_lr

    def step(self, epoch: int) -> None:
        """Sets the learning rate of the first iteration of `epoch`."""
        self.step_iteration(epoch * self.iterations_per_epoch)

    def step_iteration(self, iteration: int) -> None:
        """Sets the learning rates of a global iteration, each group's by its factor."""
        for group in self.optimizer.param_groups:
            # groups of checkpoints of earlier versions have no factor
            group["lr"] = self.schedule(iteration) * group.get(RATE_FACTOR, 1.0)
