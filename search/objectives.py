"""Objectives of a search: Dice alone, or Dice and a cost that is measured for every architecture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DICE, DICE_LATENCY, DICE_MEMORY, DICE_STEP = "dice", "dice-latency", "dice-memory", "dice-step"
OBJECTIVES = (DICE, DICE_LATENCY, DICE_MEMORY, DICE_STEP)
LATENCY, MEMORY, STEP = "latency", "memory", "step"
_OF_OBJECTIVE = {DICE_LATENCY: LATENCY, DICE_MEMORY: MEMORY, DICE_STEP: STEP}
# kind -> the setting that holds its limit, the unit, what people call it
LIMITS = {LATENCY: "max_latency_ms", MEMORY: "max_memory_mib", STEP: "max_step_ms"}
_UNITS = {LATENCY: "ms", MEMORY: "MiB", STEP: "ms"}
_TITLES = {LATENCY: "latency", MEMORY: "peak memory", STEP: "training step"}


@dataclass(frozen=True)
class Cost:
    """A cost that every architecture of a search has; less is better.

    kind: LATENCY, in ms, or MEMORY, in MiB, which are measured of every architecture; or STEP, the time of a training
    step in ms, which is added up from a table (see step_costs). minimised: whether the search looks for little of it,
    beside much Dice; if not, only the limit counts. limit: what is above is never chosen, None for no limit.
    """

    kind: str
    minimised: bool
    limit: float | None = None

    @property
    def unit(self) -> str:
        """ms or MiB."""
        return _UNITS[self.kind]

    @property
    def title(self) -> str:
        """The cost's name with its unit, for tables and axes."""
        return f"{_TITLES[self.kind]} ({self.unit})"

    @property
    def name(self) -> str:
        """The cost's name in files: latency_ms, memory_mib or step_ms."""
        return LIMITS[self.kind].removeprefix("max_")

    @property
    def flag(self) -> str:
        """The option of `slicemamba search` that sets the limit."""
        return flag_of(LIMITS[self.kind])

    def allows(self, value: float | None) -> bool:
        """True if an architecture of this cost may be chosen."""
        return self.limit is None or (value is not None and value <= self.limit)

    def shown(self, value: float) -> str:
        """A value with its unit, for people to read."""
        # no power of ten for slow steps
        return f"{value:.1f} {self.unit}" if self.kind == MEMORY or value >= 1000 else f"{value:.4g} {self.unit}"


def share_flag(kind: str) -> str:
    """The command line's option of a limit that is a share of the fixed network's cost."""
    return f"--max-{kind}"


def flag_of(setting: str) -> str:
    """The command line's option of a setting."""
    return f"--{setting.replace('_', '-')}"


def cost_of(
    objective: str, max_latency_ms: float | None, max_memory_mib: float | None, max_step_ms: float | None = None
) -> Cost | None:
    """The cost that these settings measure, None for Dice alone.

    Raises TypeError or ValueError naming the value, the rule and the remedy.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective is {objective!r}, it must be one of {', '.join(OBJECTIVES)}")
    limits = {LATENCY: max_latency_ms, MEMORY: max_memory_mib, STEP: max_step_ms}
    limited = [kind for kind, limit in limits.items() if limit is not None]
    for kind in limited:
        _check_limit(LIMITS[kind], limits[kind])
    kinds = dict.fromkeys([*([_OF_OBJECTIVE[objective]] if objective in _OF_OBJECTIVE else []), *limited])
    if len(kinds) > 1:
        given = " and ".join([f"--objective {objective}", *(flag_of(LIMITS[kind]) for kind in limited)])
        raise ValueError(
            f"{given} ask for two costs, {' and '.join(_TITLES[kind] for kind in kinds)}; a search measures one: give "
            "the limit of the objective's cost, or a single limit with --objective dice"
        )
    if not kinds:
        return None
    (kind,) = kinds
    return Cost(kind, objective in _OF_OBJECTIVE, limits[kind])


def stored_cost(settings: Mapping[str, Any]) -> Cost | None:
    """The cost of a search whose settings were kept as SearchSettings.as_dict gives them; None where it has none."""
    try:
        return cost_of(settings.get("objective", DICE), *(settings.get(name) for name in LIMITS.values()))
    except (TypeError, ValueError):  # a later version's
        return None


def _check_limit(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{flag_of(name)} is {value!r}, it must be a number")
    if not 0 < value < math.inf:
        raise ValueError(f"{flag_of(name)} is {value}, it must be above 0 and finite; leave it out for no limit")
