"""The evaluations that belong to a fold's result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.search.ledger.ledger import read_ledger
from nnunetv2_slicemamba.search.records import Record
from nnunetv2_slicemamba.slicing.file import SlicingFileError, read_slicing_file
from nnunetv2_slicemamba.slicing.find import SLICING_FILE, STUDY_FILE


def read_fold_ledger(folder: Path) -> tuple[dict[str, Any], list[Record]]:
    """`read_ledger` of a fold's slicing_search folder; of several searches, the one that best_slicing.json is from."""
    try:
        preferred = read_slicing_file(folder / SLICING_FILE).choice.details.get("study")
    except SlicingFileError:
        preferred = None
    return read_ledger(folder / STUDY_FILE, preferred=preferred)
