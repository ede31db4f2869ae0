"""Learning rate over iterations: linear warm-up, then nnU-Net's polynomial decay or half a cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from torch.optim import Optimizer

from nnunetv2_slicemamba.trainers.parameter_groups import RATE_FACTOR


class Schedule(Protocol):
    """The learning rate by iteration. initial_lr: that of the first iteration, but for a warm-up."""

    @property
    def initial_lr(self) -> float: ...

    def __call__(self, iteration: int) -> float: ...


@dataclass(frozen=True)
class WarmupPoly:
    """lr(i) = initial_lr * min(1, (i + 1) / warmup) * (1 - i / total) ** exponent, i in iterations.

    A pure function of the iteration, so that a continued training follows the same curve. hold: iterations for which
    the decay stands still; nnU-Net's does for an epoch. Raises ValueError if `total`, `warmup` or `hold` is below 1.
    """

    initial_lr: float
    warmup: int
    total: int
    exponent: float = 0.9
    hold: int = 1

    def __post_init__(self) -> None:
        _check(self.warmup, self.total)
        if self.hold < 1:
            raise ValueError(f"the decay holds for {self.hold} iterations, it must be at least 1")

    def __call__(self, iteration: int) -> float:
        left = max(0.0, 1 - (iteration - iteration % self.hold) / self.total)
        return self.initial_lr * min(1.0, (iteration + 1) / self.warmup) * left**self.exponent


@dataclass(frozen=True)
class WarmupCosine:
    """lr(i) = initial_lr * min(1, (i + 1) / warmup) * (1 + cos(pi * i / total)) / 2, i in iterations.

    A pure function of the iteration. Raises ValueError if `total` or `warmup` is below 1.
    """

    initial_lr: float
    warmup: int
    total: int

    def __post_init__(self) -> None:
        _check(self.warmup, self.total)

    def __call__(self, iteration: int) -> float:
        done = min(1.0, iteration / self.total)
        return self.initial_lr * min(1.0, (iteration + 1) / self.warmup) * (1 + math.cos(math.pi * done)) / 2


def _check(warmup: int, total: int) -> None:
    if total < 1 or warmup < 1:
        raise ValueError(f"warm-up {warmup} and total {total} iterations must be at least 1")


class IterationScheduler:
    """A scheduler as nnU-Net calls it (`step(epoch)` as an epoch starts), with a step per iteration besides."""

    def __init__(self, optimizer: Optimizer, schedule: Schedule, iterations_per_epoch: int) -> None:
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
