"""Evaluations that an older version's search had finished, but not yet written into its study, when it was killed.

That version kept evaluations in a study, some time after it had kept them in files of a folder `unsaved`.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.json_lines import read_json_lines
from nnunetv2_slicemamba.search.fingerprint import Fingerprint
from nnunetv2_slicemamba.search.records import Done, Evaluation, Task

_ENTRY = {
    "generation": int,
    "index": int,
    "architecture": [int],
    "fitness": (float, None),
    "details": dict,
    "cost?": (float, None),
    "seconds": float,
}


def left_over_files(folder: Path, fingerprint: Fingerprint, study: str, location: str) -> list[Path]:
    """The files of one search. folder: of the search. location: of its study, see `location_of`."""
    content = json.dumps([fingerprint.as_dict(), study, location], sort_keys=True)
    name = hashlib.sha256(content.encode()).hexdigest()[:16]
    return sorted((folder / "unsaved").glob(f"{name}.*.jsonl"))


def read_left_over(files: list[Path]) -> dict[tuple[int, int], Done]:
    """The evaluations by (generation, index); the files do not say how the architectures came about."""
    done = [one for file in files for one in read_json_lines(file, _ENTRY, _done)]
    return {(one.task.generation, one.task.index): one for one in done}


def _done(entry: dict[str, Any]) -> Done:
    task = Task(entry["generation"], entry["index"], tuple(entry["architecture"]), "")
    fitness = math.nan if entry["fitness"] is None else entry["fitness"]
    return Done(task, Evaluation(fitness, entry["details"], entry.get("cost")), float(entry["seconds"]))
