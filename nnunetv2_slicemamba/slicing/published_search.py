"""Result files of the published SliceMamba search, and the architecture that won in one.

The published search writes `checkpoint.pth.tar` with torch.save: `vis_dict` maps architectures (tuples of candidate
indices) to their records, in which `miou_with_dice` is the fitness, a number or (mIoU, Dice). Its evaluation step
writes the winner alone, a pickled tuple, to `arch.pkl`.
"""

from __future__ import annotations

import math
import reprlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.safe_reading import names_in, read_checkpoint, read_plain_pickle
from nnunetv2_slicemamba.slicing.candidates import Architecture, Slicing

FITNESS = "miou_with_dice"
# index 0..3 of the published supernet
PUBLISHED_CANDIDATES = ((2, 2), (2, 4), (4, 2), (4, 4))


@dataclass(frozen=True)
class PublishedSearch:
    """Winner of a published search.

    architecture: candidate indices, in network order. fitness: its numbers, () if the file has none. evaluated: number
    of architectures that the file has a fitness for.
    """

    architecture: Architecture
    fitness: tuple[float, ...]
    evaluated: int

    @property
    def slicing(self) -> Slicing:
        """Thickness per block."""
        return tuple(PUBLISHED_CANDIDATES[index] for index in self.architecture)


def is_published_search(path: Path) -> bool:
    """True if a file is a pickle or an archive of torch.save, as the published search writes them, and no JSON."""
    with path.open("rb") as file:
        return file.read(1) == b"\x80" or zipfile.is_zipfile(path)


def read_published_search(path: Path) -> PublishedSearch:
    """Architecture with the best fitness in a published result file, which is read without running its code.

    Among equals it is the one evaluated first. Raises InputError if the file is damaged, names code, or holds no
    architecture.
    """
    content = read_checkpoint(path) if zipfile.is_zipfile(path) else read_plain_pickle(path)
    if not isinstance(content, Mapping):
        return PublishedSearch(_architecture(content, path), (), 0)
    table = content.get("vis_dict")
    if not isinstance(table, Mapping):
        raise InputError(f"{path} is no result of the published search: it has no vis_dict, but {names_in(content)}")
    evaluated = {}
    for architecture, record in table.items():
        fitness = _fitness(record, path)
        if fitness is not None:
            evaluated[_architecture(architecture, path)] = fitness
    if not evaluated:
        raise InputError(f"{path} holds {len(table)} architectures, but a {FITNESS} for none of them")
    best = max(evaluated, key=evaluated.__getitem__)  # the first of equals
    return PublishedSearch(best, evaluated[best], len(evaluated))


def read_for(path: Path, n_blocks: int, n_dims: int) -> tuple[Slicing, dict[str, Any]]:
    """The winner's slicing for a network of n_blocks blocks, and where it is from; InputError if it does not fit."""
    found = read_published_search(path)
    if n_dims != 2:
        raise InputError(f"{path} is of the published search, which is 2D; this network has {n_dims} axes")
    if len(found.architecture) != n_blocks:
        raise InputError(f"{path} has {len(found.architecture)} blocks, this network has {n_blocks}")
    source = {"how_chosen": "published search", "evaluated": found.evaluated, FITNESS: list(found.fitness)}
    return found.slicing, {"file": str(path), "source": source}


def _architecture(value: Any, path: Path) -> Architecture:
    is_row = isinstance(value, (tuple, list)) and value
    if not is_row or not all(type(v) is int or isinstance(v, np.integer) for v in value):
        raise InputError(f"{path} is no result of the published search: {reprlib.repr(value)} is no architecture")
    bad = [index for index in value if not 0 <= index < len(PUBLISHED_CANDIDATES)]
    if bad:
        raise InputError(f"{path}: an architecture has index {bad[0]}, the published candidates are 0 to 3")
    return tuple(map(int, value))


def _fitness(record: Any, path: Path) -> tuple[float, ...] | None:
    value = record.get(FITNESS) if isinstance(record, Mapping) else None
    if value is None:
        return None
    try:
        numbers = tuple(float(v) for v in (value if isinstance(value, (tuple, list)) else (value,)))
    except (TypeError, ValueError):
        raise InputError(f"{path}: {FITNESS} is {reprlib.repr(value)}, it must be one number or two") from None
    return None if any(math.isnan(number) for number in numbers) else numbers
