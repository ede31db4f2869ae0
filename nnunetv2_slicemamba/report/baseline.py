"""nnU-Net's default network as the baseline of a configuration, and the commands that train it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.planning.outside_plans import STOCK_PLANS, planning_command

from .models import Model
from .plans import ConfigurationFacts

STOCK = "nnUNetTrainer"
STOCK_EPOCHS = (5, 10, 20, 50, 100, 250, 500, 750, 2000, 4000, 8000)  # of nnU-Net's trainers of other lengths


@dataclass(frozen=True)
class Baseline:
    """nnU-Net's default where it has no result in a configuration. missing: in words. commands: that get one."""

    configuration: str
    missing: str
    commands: tuple[str, ...]


def missing_baselines(
    number: int, plans: Sequence[ConfigurationFacts], models: Sequence[Model]
) -> tuple[Baseline, ...]:
    """The configurations in which our networks were validated, and nnU-Net's default was not.

    The run covers the folds that ours have, with as many epochs where nnU-Net has such a trainer.
    """
    ours: dict[str, list[Model]] = {}
    for model in models:
        if model.is_final and model.validated:
            ours.setdefault(model.configuration, []).append(model)
    found = []
    for configuration, own in ours.items():
        theirs = [model for model in models if model.is_baseline and model.configuration == configuration]
        if any(model.validated for model in theirs):
            continue
        planned = any((p.plans_name, p.configuration) == (STOCK_PLANS, configuration) for p in plans)
        commands: tuple[str, ...] = () if planned or theirs else (planning_command(number, STOCK_PLANS, configuration),)
        trainer = theirs[0].trainer if theirs else _stock_trainer(own[0].trainer)
        folds = dict.fromkeys(fold.name for model in own for fold in model.validated)
        commands += (shell_line("slicemamba", "run", "-d", number, "-c", configuration, "-f", *folds, "-tr", trainer),)
        trained = any(fold.training for model in theirs for fold in model.folds)
        found.append(Baseline(configuration, "not validated" if trained else "not trained", commands))
    return tuple(found)


def _stock_trainer(ours: str) -> str:
    """nnU-Net's trainer of as many epochs as one of ours, nnU-Net's own length where it has none."""
    told = re.search(r"_(\d+)epochs$", ours)
    return f"{STOCK}_{told[1]}epochs" if told and int(told[1]) in STOCK_EPOCHS else STOCK
