"""The problems of a source, collected first and shown at once, and notes of what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnunetv2_slicemamba.common.counts import count

SHOWN_PER_KIND = 25


@dataclass(frozen=True)
class Problem:
    """A reason not to convert. kind: the same words for all of its kind. detail: the place and the values."""

    kind: str
    detail: str


def describe(problems: Sequence[Problem], source: str, unused: str = "") -> str:
    """The message that lists all problems by kind; of a kind with many, the first ones and the number of the rest.

    unused: what the source holds besides, in words.
    """
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem.detail)
    lines = [f"{source} cannot be converted, {count(len(problems), 'problem')} found and nothing written:"]
    for kind, details in kinds.items():
        lines.append(f"  {kind} ({len(details)}):")
        lines += [f"    {detail}" for detail in details[:SHOWN_PER_KIND]]
        if len(details) > SHOWN_PER_KIND:
            lines.append(f"    and {len(details) - SHOWN_PER_KIND} more")
    return "\n".join([*lines, f"  {unused}"] if unused else lines)


def count_notes(there: Mapping[str, int], complete: Mapping[str, int], noun: str) -> list[str]:
    """A note per part that has another number of images or scans than the complete source."""
    return [
        f"{part}: {there.get(part, 0)} {noun}, the complete source has {number}"
        for part, number in complete.items()
        if there.get(part, 0) != number
    ]
