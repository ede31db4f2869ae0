"""Fingerprint of a search: everything that its evaluations depend on, and what tells two searches apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnunetv2_slicemamba.common.json_files import leaves, plain_json
from nnunetv2_slicemamba.search.fitness import FITNESS_DEFINITION
from nnunetv2_slicemamba.search.objectives import DICE
from nnunetv2_slicemamba.search.settings import SearchSettings
from nnunetv2_slicemamba.slicing.candidates import NO_BLOCK, Slicing

SCHEMA_VERSION = 1

_TITLES = {
    "schema_version": "ledger schema version",
    "settings.mutation_probability": "mutation probability",
    "settings.max_latency_ms": "--max-latency-ms",
    "settings.max_memory_mib": "--max-memory-mib",
    "settings.max_step_ms": "--max-step-ms",
    "evaluation.step_costs_sha256": "table of step costs (SHA-256)",
    "plans_name": "plans",
    "supernet_checkpoint_sha256": "supernet checkpoint (SHA-256)",
    "plans_sha256": "plans content (SHA-256)",
    "n_blocks": "number of blocks",
    "fitness_definition": "fitness definition",
}

# what a search is that was kept without these
_UNSET = {"settings.objective": DICE}


@dataclass(frozen=True)
class Fingerprint:
    """The settings and files that the evaluations of a search depend on.

    trainer: class name of the supernet's trainer. candidates: what to choose from at every block, the same for all.
    evaluation: what else changes the fitness, e.g. {"tile_step_size": 0.5}; plain JSON values.
    """

    dataset: str
    trainer: str
    plans_name: str
    configuration: str
    fold: int | str
    supernet_checkpoint_sha256: str
    plans_sha256: str
    n_blocks: int
    candidates: Slicing
    settings: SearchSettings
    fitness_definition: str = FITNESS_DEFINITION
    evaluation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_candidates_per_block(self) -> tuple[int, ...]:
        """(blocks,) number of candidates."""
        return (len(self.candidates),) * self.n_blocks

    @property
    def no_block(self) -> int | None:
        """The candidate that leaves a block out, None if there is none."""
        return self.candidates.index(NO_BLOCK) if NO_BLOCK in self.candidates else None

    @property
    def study_name(self) -> str:
        """A name that no other fold's search has: TRAINER__PLANS__CONFIG below the dataset, as nnU-Net's folders."""
        return f"{self.dataset}/{self.trainer}__{self.plans_name}__{self.configuration}/fold_{self.fold}"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, as the study keeps them."""
        content = {**vars(self), "settings": self.settings.as_dict(), "schema_version": SCHEMA_VERSION}
        return plain_json(content)

    def differences(self, stored: Mapping[str, Any]) -> list[str]:
        """Differences from a stored as_dict(), a readable phrase each, naming both values."""
        theirs, ours = dict(leaves(stored)), dict(leaves(self.as_dict()))
        return [
            f"{_title(key)} {_shown(theirs.get(key, unset))}, this search has {_shown(ours.get(key, unset))}"
            for key in dict.fromkeys([*ours, *theirs])
            for unset in [_UNSET.get(key)]
            if theirs.get(key) != ours.get(key)
        ]


def _title(key: str) -> str:
    return _TITLES.get(key, key.removeprefix("settings.").removeprefix("evaluation.").replace("_", " "))


def _shown(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, (list, bool)) else str(value)
    is_hash = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
    return f"{text[:12]}..." if is_hash else text
