"""Channels of a case that lie in files of their own: one folder per channel, or CASE_0000, CASE_0001 in one folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.datasets.problems import Problem

# nnU-Net's raw data: CASE_0000.png is the case's first channel, CASE.png its mask
CHANNEL_SUFFIX = re.compile(r"_(\d{4})$", re.ASCII)


class HasImages(Protocol):
    """A case with a file per channel."""

    @property
    def images(self) -> tuple[Path, ...]: ...


def join_channels(
    named: Sequence[Mapping[str, Path]], folders: Sequence[Path], numbered: bool, problems: list[Problem]
) -> dict[str, tuple[Path, ...]]:
    """Case -> a file per channel. Cases that lack one are problems.

    named: per folder, name without ending -> file. numbered: names end with the channel's number. Several folders hold
    one channel each, in their order; the numbers of their files then say nothing.
    """
    cases: list[dict[str, dict[int, Path]]] = []
    for files in named:
        cases.append({})
        for stem, file in files.items():
            match = CHANNEL_SUFFIX.search(stem) if numbered else None
            name, number = (stem[: match.start()], int(match[1])) if match else (stem, 0)
            cases[-1].setdefault(name, {})[number] = file
    if len(folders) == 1:
        return joined_by_number(cases[0], problems)
    joined: dict[str, tuple[Path, ...]] = {}
    for name in dict.fromkeys(name for folder in cases for name in folder):
        files_of = [list(folder.get(name, {}).values()) for folder in cases]
        wrong = [f"{count(len(f), 'file')} in {d}" for f, d in zip(files_of, folders, strict=True) if len(f) != 1]
        if wrong:
            problems.append(Problem("channel missing", f"{name} has {', '.join(wrong)}; expected one per folder"))
        else:
            joined[name] = tuple(files[0] for files in files_of)
    return joined


def joined_by_number(cases: Mapping[str, Mapping[int, Path]], problems: list[Problem]) -> dict[str, tuple[Path, ...]]:
    """Case -> its files in the order of their numbers, which run from 0."""
    joined: dict[str, tuple[Path, ...]] = {}
    for name, files in cases.items():
        numbers = sorted(files)
        if numbers != list(range(len(numbers))):
            there = ", ".join(f"_{number:04d}" for number in numbers)
            problems.append(Problem("channel missing", f"{name} has {there}; expected _0000, _0001 and so on"))
        joined[name] = tuple(files[number] for number in numbers)
    return joined


def other_numbers_of_channels(cases: Sequence[HasImages]) -> list[Problem]:
    """Cases with another number of channels than most."""
    numbers = Counter(len(case.images) for case in cases)
    usual = max(numbers, key=lambda number: numbers[number], default=0)
    return [
        Problem("other number of channels", f"{case.images[0]} has {len(case.images)}; most cases have {usual}")
        for case in cases
        if len(case.images) != usual
    ]
