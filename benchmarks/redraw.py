"""Further folds for data with one split: new random splits of the same cases into parts of the same sizes.

    python benchmarks/redraw.py SOURCE [--folds 4] [--patient REGEX]

SOURCE has split.json ({"train", "val"}) and gets splits_final.json, which accuracy.py then reads. Its fold 0 is the
split of split.json, the others are drawn with the fold's number as seed. --patient keeps the cases of a patient
together, who is what REGEX finds at the start of a case's name; the parts then have as many patients as in split.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from patients import cases_of_patients

Split = Mapping[str, Sequence[str]]


def redrawn(split: Split, seed: int, patient: str | None) -> Split:
    """A random split of the same cases, or patients, into a training part as large as that of `split`, and the rest.

    Raises ValueError for a case without a patient, and for a patient in both parts of `split`.
    """
    everything = [*split["train"], *split["val"]]
    of = {case: [case] for case in sorted(everything)} if patient is None else cases_of_patients(everything, patient)
    train = set(split["train"])
    torn = [name for name, cases in of.items() if 0 < len(train & set(cases)) < len(cases)]
    if torn:
        raise ValueError(f"patients are in both parts of the split, such as {torn[0]!r}: leave --patient out")
    in_train = sum(cases[0] in train for cases in of.values())
    names = np.random.default_rng(seed).permutation(sorted(of))
    parts = {"train": names[:in_train], "val": names[in_train:]}
    return {part: sorted(case for name in chosen for case in of[str(name)]) for part, chosen in parts.items()}


def main(given: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 for data that cannot be worked with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--folds", type=int, default=4, help="splits to draw")
    parser.add_argument("--patient", default=None, metavar="REGEX", help=r"such as 'patient\d+'")
    arguments = parser.parse_args(given)
    try:
        split = json.loads((arguments.source / "split.json").read_text())
        splits = [split, *(redrawn(split, fold, arguments.patient) for fold in range(1, arguments.folds + 1))]
    except (ValueError, OSError) as error:
        print(f"error: {error}")
        return 2
    (arguments.source / "splits_final.json").write_text(json.dumps(splits, indent=1))
    print(f"{len(splits)} folds of {len(split['train'])} + {len(split['val'])} cases")
    return 0


if __name__ == "__main__":
    sys.exit(main())
