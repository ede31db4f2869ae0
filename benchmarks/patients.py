"""Five folds of nnU-Net raw data that keep the cases of each patient together, for accuracy.py.

    python benchmarks/patients.py SOURCE TARGET [--patient REGEX]

TARGET gets links to SOURCE's images and labels, and splits_final.json: nnU-Net's own five folds, of patients in place
of cases. A case belongs to the patient that REGEX finds at the start of its name: patient001 of patient001_frame01.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from accuracy_data import lay_out


def cases_of_patients(cases: Iterable[str], patient: str) -> dict[str, list[str]]:
    """The cases of every patient, both in order. Raises ValueError for a case without a patient."""
    of: dict[str, list[str]] = {}
    for case in sorted(cases):
        found = re.match(patient, case)
        if found is None:
            raise ValueError(f"the case {case!r} does not begin with a patient, {patient!r}; give another --patient")
        of.setdefault(found[0], []).append(case)
    return of


def folds_of_patients(cases: Iterable[str], patient: str) -> list[dict[str, list[str]]]:
    """nnU-Net's five folds, seed and all, of the patients of the cases; every fold with the patients' cases.

    Raises ValueError for a case without a patient, and for fewer than five patients.
    """
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    of = cases_of_patients(cases, patient)
    if len(of) < 5:
        raise ValueError(f"there are {len(of)} patients; five folds need five at least")
    splits = generate_crossval_split(sorted(of), seed=12345, n_splits=5)
    return [
        {part: [case for one in names for case in of[str(one)]] for part, names in split.items()} for split in splits
    ]


def main(given: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 for data that cannot be worked with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--patient", default=r"patient\d+", metavar="REGEX")
    arguments = parser.parse_args(given)
    try:
        cases = [file.name.partition(".")[0] for file in (arguments.source / "labelsTr").iterdir()]
        splits = folds_of_patients(cases, arguments.patient)
        lay_out(arguments.source, arguments.target, 1)
    except (ValueError, OSError) as error:
        print(f"error: {error}")
        return 2
    (arguments.target / "splits_final.json").write_text(json.dumps(splits, indent=1))
    print("training and validation cases:", *(f"{len(split['train'])} + {len(split['val'])}" for split in splits))
    return 0


if __name__ == "__main__":
    sys.exit(main())
