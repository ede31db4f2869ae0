"""Cases that a fitness is measured on: the fold's validation cases or its holdout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nnunetv2_slicemamba.common.counts import count

VALIDATION, HOLDOUT = "validation", "holdout"
KINDS = (VALIDATION, HOLDOUT)


@dataclass(frozen=True)
class MeasuredOn:
    """The cases that decide a search.

    kind: VALIDATION, the fold's validation cases, on which its Dice is optimistic afterwards, or HOLDOUT, a part of its
    training cases. number, sha256: of the cases' names; None in results of versions that did not record them.
    Raises ValueError for another kind.
    """

    kind: str = VALIDATION
    number: int | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"measured_on has kind {self.kind!r}, it must be one of {', '.join(KINDS)}")

    @property
    def in_words(self) -> str:
        """The cases for people: 8 holdout cases; without their number where it is not known."""
        return f"{self.kind} cases" if self.number is None else count(self.number, f"{self.kind} case")

    def for_fingerprint(self) -> dict[str, Any]:
        """Entries of a search's fingerprint: validation_cases, or holdout_cases, and their SHA-256."""
        return {f"{self.kind}_cases": self.number, f"{self.kind}_cases_sha256": self.sha256}
