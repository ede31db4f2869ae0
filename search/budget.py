"""A budget for the training step of the architecture that a search chooses: its limit, and whether it can be kept."""

from __future__ import annotations

import torch

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.search.evaluation.step_costs import StepCosts, step_costs_of
from nnunetv2_slicemamba.search.evaluation.supernet_fold import require_checkpoint
from nnunetv2_slicemamba.search.objectives import Cost
from nnunetv2_slicemamba.search.workers.processes import Process


def require_affordable(cost: Cost, costs: StepCosts) -> None:
    """Raises InputError if no architecture is within the limit of a step's time."""
    if not cost.allows(costs.cheapest):
        raise InputError(
            f"{cost.flag} {cost.limit:g} is below what every architecture takes: the cheapest needs "
            f"{cost.shown(costs.cheapest)} a step, the fixed network {cost.shown(costs.fixed)}. Give a higher limit, "
            "or train a smaller size of plans"
        )


def step_limit(folder: SupernetFolder, share: float, device: torch.device, keep: bool = True) -> float:
    """Milliseconds of a training step that are this share of the fixed network's, by the fold's table of step costs.

    In processes that help another one, which has the limit, any number.
    """
    process = Process.from_environment()
    if not process.is_writer:
        return 1.0
    require_checkpoint(folder)
    costs = step_costs_of(folder, process.device(device), keep)
    return round(share * costs.fixed, 3)
