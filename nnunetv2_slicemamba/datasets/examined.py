"""Examined pairs: what decoding each gave, and what only all of them together show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.datasets.pairing import SEARCH, Pair
from nnunetv2_slicemamba.datasets.problems import Problem


@dataclass(frozen=True)
class ExaminedPair:
    """A decoded pair. digest: of the image's pixels as RGB. labels: those in the mask, None without a mask that fits.

    transparent: the image has pixels that are not opaque.
    """

    pair: Pair
    problems: tuple[Problem, ...]
    digest: str = ""
    grey: bool = False
    labels: frozenset[int] | None = None
    transparent: bool = False


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
    empty = sum(one.labels is not None and not one.labels - {0} for one in examined)
    return [f"{count(empty, 'mask')} without foreground"] if empty else []


def label_notes(examined: Sequence[ExaminedPair], labels: Mapping[str, int]) -> list[str]:
    """A note of labels that no mask holds, where there are several. labels: name -> number."""
    held = frozenset[int]().union(*(one.labels or frozenset() for one in examined))
    absent = [name for name, number in labels.items() if number not in held and number > 0]
    if len(labels) < 3 or not absent:
        return []
    more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
    return [f"{count(len(absent), 'label')} in no mask: {', '.join(absent[:5])}{more}"]


def black_and_white_only(examined: Sequence[ExaminedPair], n_labels: int) -> list[Problem]:
    """A problem where white, 255, would be one of many labels and no mask holds another one."""
    held = frozenset[int]().union(*(one.labels or frozenset() for one in examined))
    if n_labels <= 255 or held - {0} != {255}:
        return []
    return [
        Problem(
            "masks black and white",
            f"all masks hold 0 and 255 only, of {n_labels} labels; if 255 is white, name one label",
        )
    ]


def transparency_notes(examined: Sequence[ExaminedPair]) -> list[str]:
    """A note of images with transparent pixels."""
    transparent = sum(one.transparent for one in examined)
    return [f"{count(transparent, 'image')} with transparent pixels: their colours are written as if opaque"] * bool(
        transparent
    )


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
