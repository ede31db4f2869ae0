"""SHA-256 of checkpoints, plans and sets of cases."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PLANNED_WITH = "slicemamba_planned_with"  # entry of plans: the options that they were planned with, for people
# None changes what a trained network predicts: how it was trained, a flag that nnU-Net's training adds, a record.
_NOT_IN_PREDICTION = ("batch_size", "batch_dice", "continue_training", PLANNED_WITH)


def sha256_of_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_names(names: Iterable[str]) -> str:
    """SHA-256 of names in the given order, 64 hexadecimal digits."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def sha256_of_plans(plans: Mapping[str, Any], configuration: str) -> str:
    """SHA-256 of what nnU-Net plans say about one configuration, 64 hexadecimal digits.

    plans: the content of plans.json. Counted are the resolved configuration (architecture, patch size, spacing,
    resampling, normalization ...) and all that holds for every configuration; not other configurations, the order of
    keys, the layout of the file (every fold's training writes plans.json again) or the batch size.
    Raises ValueError for a configuration that is not there or that inherits from itself.
    """
    counted = {key: value for key, value in plans.items() if key not in ("configurations", *_NOT_IN_PREDICTION)}
    resolved = resolved_configuration(plans.get("configurations", {}), configuration)
    counted["configuration"] = {key: value for key, value in resolved.items() if key not in _NOT_IN_PREDICTION}
    canonical = json.dumps(counted, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def resolved_configuration(
    configurations: Mapping[str, Any], name: str, inheriting: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A plans' configuration with what it inherits, as nnU-Net's PlansManager resolves it.

    inheriting: the configurations that led here. Raises ValueError for one that is not there or inherits from itself.
    """
    if name not in configurations:
        raise ValueError(f"the plans have no configuration '{name}', they have {', '.join(configurations) or 'none'}")
    if name in inheriting:
        raise ValueError(f"the plans' configurations inherit in a circle: {' <- '.join((*inheriting, name))}")
    configuration = dict(configurations[name])
    parent = configuration.pop("inherits_from", None)
    if parent is None:
        return configuration
    return {**resolved_configuration(configurations, parent, (*inheriting, name)), **configuration}
