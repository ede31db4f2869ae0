"""A small search with a cheap evaluation, for the tests; run as a program it can be killed at any moment.

    python killable_search.py STUDY_FILE

prints "begin ARCHITECTURE" before and "end ARCHITECTURE" after every evaluation, and "done" at the end.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import sys
import time
from typing import Any

from nnunetv2_slicemamba.search import Architecture, Evaluation, Fingerprint, SearchSettings, open_ledger, run_search
from nnunetv2_slicemamba.search.ledger.study_export import StudyExport

CANDIDATES = ((2, 2), (2, 4), (4, 2), (4, 4))
SETTINGS = SearchSettings(population=6, generations=4, parents=3, seed=7)
LONGER = SearchSettings(population=12, generations=4, parents=3, seed=7)  # not over before it is killed


def fingerprint(settings: SearchSettings = SETTINGS, **changes: Any) -> Fingerprint:
    """A fingerprint of a network with five blocks, or one that differs from it."""
    content = Fingerprint(
        dataset="Dataset999_Test",
        trainer="SliceMambaSupernetTrainer",
        plans_name="nnUNetSliceMambaSPlans",
        configuration="2d",
        fold=0,
        supernet_checkpoint_sha256="a" * 64,
        plans_sha256="b" * 64,
        n_blocks=5,
        candidates=CANDIDATES,
        settings=settings,
    )
    return dataclasses.replace(content, **changes)


def fitness_of(architecture: Architecture) -> float:
    """Any number from 0 to 1, the same for the same architecture; undefined for one in sixteen, with ties."""
    byte = hashlib.sha256(bytes(architecture)).digest()[0]
    return math.nan if byte % 16 == 0 else (byte // 4) / 64


def evaluate(architecture: Architecture) -> Evaluation:
    return Evaluation(fitness_of(architecture), {"dice_per_class": [fitness_of(architecture), math.nan]})


def main(study_file: str) -> None:
    def evaluate_aloud(architecture: Architecture) -> Evaluation:
        print("begin", architecture, flush=True)
        time.sleep(0.02)
        print("end", architecture, flush=True)
        return evaluate(architecture)

    with open_ledger(study_file, fingerprint(LONGER)) as ledger, StudyExport(ledger):
        run_search(evaluate_aloud, LONGER, ledger, progress=False)
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
