"""Latency and memory of the fixed network, of which a limit may be a share; measured once, and kept."""

from __future__ import annotations

from dataclasses import replace

import torch

from nnunetv2_slicemamba.common.hashing import resolved_configuration, sha256_of_plans
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.common.json_reading import JsonKind
from nnunetv2_slicemamba.common.verbosity import progress_console
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.planning.selection import Selection
from nnunetv2_slicemamba.search.evaluation.cost_measurement import (
    CostMeter,
    measured_with,
    require_measurable,
    why_measured_anew,
)
from nnunetv2_slicemamba.search.objectives import Cost
from nnunetv2_slicemamba.slicing.fixed import FIXED_THICKNESS
from nnunetv2_slicemamba.trainers.offline import make_trainer, quiet

FIXED_COSTS_FILE = "fixed_costs.json"
_KIND = JsonKind("the costs of a fixed network", dict, "Delete it; the search measures them anew")


def fixed_cost_of(folder: SupernetFolder, cost: Cost, device: torch.device, keep: bool = True) -> float:
    """The cost of a supernet's path on which every block has the fixed slicing, in the cost's unit.

    It is kept, so that the same share is the same limit when the search goes on. keep: write what is measured. Raises
    InputError where the device cannot tell the cost.
    """
    require_measurable(cost, device)
    file = folder.search / FIXED_COSTS_FILE
    plans_hash = sha256_of_plans(folder.selection.plans, folder.selection.configuration)
    conditions = {**measured_with(cost, device), "plans_sha256": plans_hash}
    content = _KIND.read(file) if _KIND.is_readable(file) else {}
    known = content.get(cost.name)
    if isinstance(known, dict) and isinstance(known.get("with"), dict) and isinstance(known.get("value"), float):
        why = why_measured_anew(known["with"], conditions)
        if why is None:
            return float(known["value"])
        progress_console().print(
            f"The {cost.title} in {file} is not used: {why}. Measuring that of the fixed network ...", soft_wrap=True
        )
    value = _measured(folder, cost, device)
    if keep:
        write_json(file, {**content, cost.name: {"value": value, "with": conditions}})
    return value


def _measured(folder: SupernetFolder, cost: Cost, device: torch.device) -> float:
    """Measured as the search measures paths: on a supernet, which here has no other candidate."""
    selection = folder.selection
    with quiet():
        trainer = make_trainer(replace(folder, selection=_with_fixed_candidate(selection)), device)
        trainer.initialize()
    network = trainer.network.eval()
    network.decoder.deep_supervision = False
    patch = trainer.configuration_manager.patch_size
    return CostMeter(network, trainer.num_input_channels, patch, device, cost).measure((0,) * selection.n_blocks)


def _with_fixed_candidate(selection: Selection) -> Selection:
    """The selection with plans whose only candidate is the fixed thickness."""
    name = selection.configuration
    configuration = resolved_configuration(selection.plans["configurations"], name)
    architecture = configuration["architecture"]
    kwargs = {**architecture["arch_kwargs"], "candidates": [list(FIXED_THICKNESS[selection.n_dims])]}
    own = {**configuration, "architecture": {**architecture, "arch_kwargs": kwargs}}
    return replace(
        selection, plans={**selection.plans, "configurations": {**selection.plans["configurations"], name: own}}
    )
