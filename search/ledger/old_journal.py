"""Evaluations that an older version's search had finished, but not yet written into its study, when it was killed.

That version kept evaluations in a study, some time after it had kept them in files of a folder `unsaved`.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

from nnunetv2_slicemamba.search.fingerprint import Fingerprint
from nnunetv2_slicemamba.search.records import Done, Evaluation, Task


def left_over_files(folder: Path, fingerprint: Fingerprint, study: str, location: str) -> list[Path]:
    """The files of one search. folder: of the search. location: of its study, see `location_of`."""
    content = json.dumps([fingerprint.as_dict(), study, location], sort_keys=True)
    name = hashlib.sha256(content.encode()).hexdigest()[:16]
    return sorted((folder / "unsaved").glob(f"{name}.*.jsonl"))


def read_left_over(files: list[Path]) -> dict[tuple[int, int], Done]:
    """The evaluations by (generation, index); the files do not say how the architectures came about."""
    found = {}
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                task = Task(int(entry["generation"]), int(entry["index"]), tuple(entry["architecture"]), "")
                fitness = math.nan if entry["fitness"] is None else entry["fitness"]
                evaluation = Evaluation(fitness, dict(entry["details"]), entry.get("cost"))
                found[task.generation, task.index] = Done(task, evaluation, float(entry["seconds"]))
            except (ValueError, TypeError, KeyError):  # the line that a process was killed in
                continue
    return found
