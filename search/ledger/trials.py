"""An evaluation as an Optuna trial, and back.

Parameters block_00, block_01, ... hold the candidate index of every block, so that Optuna's dashboard and importances
understand them; attributes hold the rest. Optuna refuses NaN in a complete trial: an evaluation with undefined fitness
is a failed trial without a value, with its parameters and attributes.
"""

from __future__ import annotations

import datetime
import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from nnunetv2_slicemamba.search.objectives import Cost
from nnunetv2_slicemamba.search.records import Record

if TYPE_CHECKING:
    import optuna

OWN_ATTRIBUTES = ("architecture", "generation", "index", "origin", "seconds")
COST = "cost"  # an attribute only where one was measured


def choices_of(n_candidates_per_block: Sequence[int]) -> dict[str, optuna.distributions.BaseDistribution]:
    """The parameter of every block, in network order: a choice among its candidates' indices."""
    return {f"block_{block:02d}": _choice(n) for block, n in enumerate(n_candidates_per_block)}


@functools.lru_cache
def _choice(n: int) -> optuna.distributions.CategoricalDistribution:
    """One distribution for all blocks with n candidates: making and comparing thousands takes long."""
    from optuna.distributions import CategoricalDistribution

    return CategoricalDistribution(tuple(range(n)))


def check_record(record: Record, n_candidates_per_block: Sequence[int]) -> None:
    """Refuses a record that no study of the network could hold.

    Raises ValueError if details have names of the ledger's, the network has no such architecture, or the cost is NaN.
    """
    clash = set(record.details) & {*OWN_ATTRIBUTES, COST}
    if clash:
        raise ValueError(f"details may not be named {', '.join(sorted(clash))}: the ledger uses these names itself")
    known = len(record.architecture) == len(n_candidates_per_block)
    if not known or not all(0 <= i < n for i, n in zip(record.architecture, n_candidates_per_block, strict=True)):
        raise ValueError(
            f"{record.architecture} is no architecture of a network whose blocks have {list(n_candidates_per_block)} "
            "candidates; give each block's candidate, counted from 0"
        )
    if record.cost is not None and math.isnan(record.cost):
        raise ValueError(f"the cost of {record.architecture} is {record.cost}; measure it again")


def trial_of(
    record: Record, n_candidates_per_block: Sequence[int], two_values: bool = False
) -> optuna.trial.FrozenTrial:
    """A finished trial that holds the record, which `check_record` accepts.

    two_values: the cost is the trial's second value, for a study with two directions.
    """
    from optuna.trial import TrialState, create_trial

    choices = choices_of(n_candidates_per_block)
    undefined = math.isnan(record.fitness)
    trial = create_trial(
        state=TrialState.FAIL if undefined else TrialState.COMPLETE,
        values=None if undefined else values_of(record, two_values),
        params=dict(zip(choices, record.architecture, strict=True)),
        distributions=choices,
        user_attrs={
            "architecture": list(record.architecture),
            "generation": record.generation,
            "index": record.index,
            "origin": record.origin,
            "seconds": record.seconds,
            **({} if record.cost is None else {COST: record.cost}),
            **record.details,
        },
    )
    assert trial.datetime_complete is not None
    trial.datetime_start = trial.datetime_complete - datetime.timedelta(seconds=record.seconds)
    return trial


def directions_of(cost: Cost | None) -> list[Literal["maximize", "minimize"]]:
    """Directions of a study's values, see values_of: two where the search minimises a cost."""
    return ["maximize", "minimize"] if cost is not None and cost.minimised else ["maximize"]


def values_of(record: Record, two_values: bool) -> list[float]:
    """A trial's values: the fitness, to be maximized, and with two_values the cost, to be minimized."""
    if not two_values:
        return [record.fitness]
    assert record.cost is not None
    return [record.fitness, record.cost]


def records_of(trials: Sequence[optuna.trial.FrozenTrial]) -> dict[tuple[int, int], Record]:
    """The records by (generation, index). What a search did not write is left out; of two, the older one counts."""
    records: dict[tuple[int, int], Record] = {}
    for trial in trials:
        attributes = trial.user_attrs
        if trial.state.is_finished() and all(name in attributes for name in OWN_ATTRIBUTES):
            record = Record(
                architecture=tuple(attributes["architecture"]),
                fitness=trial.values[0] if trial.values else math.nan,  # of one value or two
                generation=attributes["generation"],
                index=attributes["index"],
                origin=attributes["origin"],
                seconds=attributes["seconds"],
                details={name: value for name, value in attributes.items() if name not in (*OWN_ATTRIBUTES, COST)},
                cost=attributes.get(COST),
            )
            records.setdefault((record.generation, record.index), record)
    return records
