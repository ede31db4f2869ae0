"""A conversion whose source was found to be in order: everything that will be written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nnunetv2_slicemamba.datasets.cases import Case, Rules
from nnunetv2_slicemamba.datasets.splits import Fold


@dataclass(frozen=True)
class Conversion:
    """Cases, split and description of a new dataset.

    rules: how sources become targets. folds: for splits_final.json, or None. description: dataset.json. notes: what
    the user should know. left_out: the files of the source that became nothing, in words; empty if there are none.
    """

    cases: tuple[Case, ...]
    rules: Rules
    folds: list[Fold] | None
    description: dict[str, Any]
    notes: tuple[str, ...]
    left_out: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "cases": [case.as_json() for case in self.cases],
            "rules": asdict(self.rules),
            "folds": self.folds,
            "description": self.description,
            "notes": list(self.notes),
            "left_out": self.left_out,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Conversion:
        return cls(
            tuple(map(Case.from_json, values["cases"])),
            Rules.from_json(values["rules"]),
            values["folds"],
            values["description"],
            tuple(values["notes"]),
            values.get("left_out", ""),  # earlier versions did not look
        )

    def number(self, subset: str) -> int:
        """Number of cases in a subset, Tr or Ts."""
        return sum(case.subset == subset for case in self.cases)
