"""Recipes: the optimiser with its rates and its schedule, and which network is trained by which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from nnunetv2_slicemamba.trainers.schedule import Schedule, WarmupCosine, WarmupPoly


@dataclass(frozen=True)
class Recipe:
    """Settings of an optimiser; a trainer's attributes of the same names take precedence.

    decay: of weights, per unit of the learning rate. decays_all: also that of biases, norms and scan parameters.
    warmup_iterations: a twentieth of the training where that is less. schedule: a key of SCHEDULES. betas: AdamW's.
    momentum: that of SGD, with Nesterov's look ahead. block_learning_rate, block_decay: of S3 blocks with an optimiser
    of their own; the schedule is the network's.
    """

    learning_rate: float
    decay: float
    decays_all: bool
    warmup_iterations: int
    schedule: str
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.0
    block_learning_rate: float = 0.0
    block_decay: float = 0.0


NNUNET = Recipe(1e-2, 3e-5, decays_all=True, warmup_iterations=1, schedule="poly-epochs", momentum=0.99)
# adamw: learning rate and decay of the publication. adamw-cosine: chosen for residual networks, see docs/results.md.
# sgd: nnU-Net's own. sgd-adamw: nnU-Net's, and AdamW for the blocks
RECIPES = {
    "adamw": Recipe(1e-3, 1e-2, decays_all=False, warmup_iterations=1250, schedule="poly"),
    "adamw-cosine": Recipe(3e-4, 1e-2, decays_all=False, warmup_iterations=250, schedule="cosine"),
    "sgd": NNUNET,
    "sgd-adamw": replace(NNUNET, block_learning_rate=3e-4, block_decay=1e-2),
}
# by the class that plans name; all others are trained with adamw
OPTIMIZER_OF = {"SliceMambaResidualUNet": "adamw-cosine"}

SCHEDULES: dict[str, Callable[[float, int, int, int], Schedule]] = {
    "poly": lambda rate, warmup, total, epoch: WarmupPoly(rate, warmup, total),
    "poly-epochs": lambda rate, warmup, total, epoch: WarmupPoly(rate, warmup, total, hold=epoch),
    "cosine": lambda rate, warmup, total, epoch: WarmupCosine(rate, warmup, total),
}


def make_schedule(name: str, rate: float, warmup: int, epochs: int, iterations: int) -> Schedule:
    """The learning rate by iteration; iterations: of an epoch. ValueError for a name that is none of SCHEDULES."""
    if name not in SCHEDULES:
        raise ValueError(f"schedule {name!r} does not exist; give one of {', '.join(SCHEDULES)}")
    total = epochs * iterations
    return SCHEDULES[name](rate, max(1, min(warmup, total // 20)), total, iterations)
