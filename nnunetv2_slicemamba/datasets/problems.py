"""Everything that is wrong with a source, collected first and shown at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHOWN_PER_KIND = 25


@dataclass(frozen=True)
class Problem:
    """kind: what is wrong, the same words for all of its kind. detail: where, and with which values."""

    kind: str
    detail: str


def describe(problems: Sequence[Problem], source: str) -> str:
    """The message that lists all problems by kind; of a kind with many, the first ones and the number of the rest."""
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem.detail)
    lines = [f"{source} cannot be converted, {count(len(problems), 'problem')} found and nothing written:"]
    for kind, details in kinds.items():
        lines.append(f"  {kind} ({len(details)}):")
        lines += [f"    {detail}" for detail in details[:SHOWN_PER_KIND]]
        if len(details) > SHOWN_PER_KIND:
            lines.append(f"    and {len(details) - SHOWN_PER_KIND} more")
    return "\n".join(lines)


def count(number: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
