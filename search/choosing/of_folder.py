"""Slicings that a fold's own search or step costs give: front:K, cheapest, random-at-budget:SEED."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.search.choosing.choices import choose_slicing
from nnunetv2_slicemamba.search.choosing.pareto import PARETO_FILE
from nnunetv2_slicemamba.search.ledger.fold_ledger import read_fold_ledger
from nnunetv2_slicemamba.search.ledger.ledger import has_ledger
from nnunetv2_slicemamba.search.objectives import STEP, stored_cost
from nnunetv2_slicemamba.search.proposals.evolution import propose
from nnunetv2_slicemamba.search.settings import SearchSettings
from nnunetv2_slicemamba.slicing.candidates import NO_BLOCK, Architecture
from nnunetv2_slicemamba.slicing.choice import SlicingChoice

if TYPE_CHECKING:
    from nnunetv2_slicemamba.search.evaluation.step_costs import StepCosts

FRONT, CHEAPEST, AT_BUDGET = "front", "cheapest", "random-at-budget"
SET = "set"  # entry of the details of what was chosen: the value
NEAR = 0.9  # of the budget: what is drawn at it takes at least so much of it
_OF_FOLDER = re.compile(rf"{FRONT}:[0-9]{{1,6}}|{CHEAPEST}|{AT_BUDGET}:[0-9]{{1,9}}")


def is_of_folder(value: str) -> bool:
    """True for a value that only a fold's search can tell."""
    return _OF_FOLDER.fullmatch(value) is not None


def choose_of_folder(folder: SupernetFolder, value: str) -> SlicingChoice:
    """The slicing that a value for which `is_of_folder` holds stands for.

    front:K is entry K, from 1, of the fold's Pareto front. cheapest has at every block the candidate that adds least to
    a training step. random-at-budget:SEED is drawn at random among what takes 90 to 100 % of the budget that the fold's
    search had. Raises ValueError naming what is missing and the remedy.
    """
    selection = folder.selection
    kind, _, number = value.partition(":")
    if kind == FRONT:
        entry = f"{folder.search / PARETO_FILE}:{number}"
        return choose_slicing(entry, selection.n_blocks, selection.n_dims, selection.candidates)
    # which loads PyTorch
    from nnunetv2_slicemamba.search.evaluation.step_costs import STEP_COSTS_FILE, StepCosts, look_for_step_costs

    costs = look_for_step_costs(folder, None)
    if not isinstance(costs, StepCosts):
        raise ValueError(
            f"{value} needs the step costs of the candidates, {folder.search / STEP_COSTS_FILE}, which cannot be used "
            f"({costs or 'it is not there'}): search the fold with a budget (slicemamba search --max-step 60%)"
        )
    if kind == CHEAPEST:
        architecture = tuple(min(range(len(own)), key=own.__getitem__) for own in costs.blocks)
        return _choice(folder, costs, architecture, "fixed", value)
    seed = int(number)
    return _choice(folder, costs, _drawn(folder, costs, seed), "random", value, seed)


def _drawn(folder: SupernetFolder, costs: StepCosts, seed: int) -> Architecture:
    stored = read_fold_ledger(folder.search)[0] if has_ledger(folder.study) else {}
    cost = stored_cost(stored.get("settings", {}))
    if cost is None or cost.kind != STEP or cost.limit is None:
        raise ValueError(
            f"{folder.search} holds no search with a budget, so {AT_BUDGET} has none: search the fold with one "
            "(slicemamba search --max-step 60%)"
        )
    limit, candidates = cost.limit, folder.selection.candidates
    no_block = candidates.index(NO_BLOCK) if NO_BLOCK in candidates else None

    def allowed(architecture: Architecture) -> bool:
        return NEAR * limit <= costs.measure(architecture) <= limit

    one = SearchSettings(population=1, generations=0, seed=seed)
    found = propose(one, [len(candidates)] * folder.selection.n_blocks, 0, [], no_block, allowed)
    if not found:
        raise ValueError(f"no architecture was found that takes {NEAR:.0%} to 100% of the budget, {cost.shown(limit)}")
    return found[0]


def _choice(
    folder: SupernetFolder, costs: StepCosts, architecture: Architecture, how: str, value: str, seed: int | None = None
) -> SlicingChoice:
    slicing = tuple(folder.selection.candidates[index] for index in architecture)
    return SlicingChoice(
        slicing, how, architecture, seed=seed, details={SET: value, "step_ms": costs.measure(architecture)}
    )
