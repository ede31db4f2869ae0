"""A budget for the architecture that a search chooses: its limit, and whether it can be kept."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.search.evaluation.fixed_cost import fixed_cost_of
from nnunetv2_slicemamba.search.evaluation.step_costs import StepCosts, step_costs_of
from nnunetv2_slicemamba.search.evaluation.supernet_fold import require_checkpoint
from nnunetv2_slicemamba.search.objectives import LIMITS, STEP, Cost, share_flag
from nnunetv2_slicemamba.search.settings import SearchSettings
from nnunetv2_slicemamba.search.workers.processes import Process


def require_affordable(cost: Cost, costs: StepCosts) -> None:
    """Raises InputError if no architecture is within the limit of a step's time."""
    if not cost.allows(costs.cheapest):
        least = math.ceil(100 * costs.cheapest / costs.fixed)
        raise InputError(
            f"{cost.flag} {cost.limit:g} is below what every architecture takes: the cheapest needs "
            f"{cost.shown(costs.cheapest)} a step, the fixed network {cost.shown(costs.fixed)}. Give a higher limit, "
            f"{share_flag(STEP)} {least}% or more (in 'slicemamba run' --budget {least}%), or train a smaller size of "
            "plans"
        )


def with_share(
    settings: SearchSettings, kind: str, share: float, folder: SupernetFolder, device: torch.device, keep: bool = True
) -> SearchSettings:
    """The settings with a limit of a cost that is this share of the fixed network's.

    kind: of the cost. keep: write what is measured of the fixed network. In processes that help another one, which has
    the limit, it is any number. Raises ValueError where the settings have another limit or cost, before anything is
    measured.
    """
    if getattr(settings, LIMITS[kind]) is not None:
        raise InputError(f"{share_flag(kind)} and {Cost(kind, False).flag} are the same limit; give one of them")
    checked = _limited(settings, kind, 1.0)
    process = Process.from_environment()
    if not process.is_writer:
        return checked
    require_checkpoint(folder)
    where = process.device(device)
    if kind == STEP:
        fixed = step_costs_of(folder, where, keep).fixed
    else:
        fixed = fixed_cost_of(folder, Cost(kind, False), where, keep)
    return _limited(settings, kind, round(share * fixed, 3))


def _limited(settings: SearchSettings, kind: str, limit: float) -> SearchSettings:
    changed: dict[str, Any] = {LIMITS[kind]: limit}
    return replace(settings, **changed)
