"""Examined pairs: what decoding each gave, and what only all of them together show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnunetv2_slicemamba.datasets.pairing import SEARCH, Pair
from nnunetv2_slicemamba.datasets.problems import Problem, count


@dataclass(frozen=True)
class ExaminedPair:
    """A decoded pair. digest: of the image's pixels as RGB. empty: the mask has no foreground."""

    pair: Pair
    problems: tuple[Problem, ...]
    digest: str = ""
    grey: bool = False
    empty: bool = False


def same_names(pairs: Sequence[Pair]) -> list[Problem]:
    """Images of one name in several parts, apart from `search`, which usually repeats others."""
    seen: dict[str, Pair] = {}
    problems = []
    for pair in pairs:
        if pair.part == SEARCH:
            continue
        if pair.stem in seen:
            problems.append(Problem("same name in two parts", f"{seen[pair.stem].image} and {pair.image}"))
        seen.setdefault(pair.stem, pair)
    return problems


def same_case_names(names: Mapping[Pair, str]) -> list[Problem]:
    """Images whose names differ only in characters that case names do not have, or only in case."""
    seen: dict[str, Pair] = {}
    problems = []
    for pair, name in names.items():
        # file systems that ignore case would overwrite one with the other
        other = seen.setdefault(name.lower(), pair)
        if other.stem != pair.stem:
            problems.append(Problem("names too alike", f"{other.image} and {pair.image} would both be {name}"))
    return problems


def empty_notes(examined: Sequence[ExaminedPair]) -> list[str]:
    """A note of masks that are all background."""
    empty = sum(one.empty for one in examined)
    return [f"{count(empty, 'mask')} without foreground"] if empty else []


def duplicate_notes(examined: Sequence[ExaminedPair]) -> list[str]:
    """A note of equal images under different names, above all of those on two sides of the split."""
    groups: dict[str, list[Pair]] = {}
    for one in examined:
        if one.pair.part != SEARCH:
            groups.setdefault(one.digest, []).append(one.pair)
    twice = [group for group in groups.values() if len(group) > 1]
    across = [group for group in twice if len({pair.part for pair in group}) > 1]
    if not twice:
        return []
    first = (across or twice)[0]
    sides = f", {len(across)} of them in different parts" if across else ""
    return [
        f"{count(len(twice), 'image')} there more than once under other names{sides}, kept as they are "
        f"(e.g. {' and '.join(f'{pair.part}/{pair.image.name}' for pair in first[:2])})"
    ]
