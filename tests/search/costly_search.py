"""A search with a made-up cost, for the tests: the later a block's candidate, the more it costs; the order matters."""

from __future__ import annotations

from typing import Any

from nnunetv2_slicemamba.search import Architecture, Evaluation, Fingerprint, SearchSettings
from tests.search.killable_search import fingerprint, fitness_of

CONDITIONS = {"cost_definition": "made up", "device": "a device", "pytorch": "2.0", "scan_backend": "torch"}


def settings_of(sampler: str = "evolution", objective: str = "dice-latency", **changes: Any) -> SearchSettings:
    given = {"population": 6, "generations": 3, "seed": 7, "sampler": sampler, "objective": objective, **changes}
    if sampler == "evolution":
        given.setdefault("parents", 3)
    return SearchSettings(**given)


def cost_of(architecture: Architecture) -> float:
    """10 to 25, in whole steps, so that there are ties."""
    return 10.0 + sum(architecture)


def evaluate(architecture: Architecture) -> Evaluation:
    return Evaluation(fitness_of(architecture), {"device": "a device"}, cost_of(architecture))


def fingerprint_of(settings: SearchSettings, **changes: Any) -> Fingerprint:
    return fingerprint(settings, **{"evaluation": CONDITIONS if settings.cost else {}, **changes})
