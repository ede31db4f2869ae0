"""Consensus of several folds' searches on one architecture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_slicemamba.search.records import History
from nnunetv2_slicemamba.slicing.candidates import Architecture

SHARED = "best mean fitness over the folds, among the architectures that every fold evaluated"
PER_BLOCK = (
    "no architecture was evaluated in every fold; at each block the candidate with the best mean over the folds of the "
    "mean fitness of the fold's architectures that hold it, after the fold's own mean was subtracted"
)


@dataclass(frozen=True)
class Consensus:
    """An architecture that the folds agree on.

    rule: SHARED or PER_BLOCK. fitness: mean over the folds, None if not every fold evaluated the architecture.
    folds: whose searches took part. n_shared: architectures with a defined fitness in every fold.
    """

    architecture: Architecture
    fitness: float | None
    rule: str
    folds: tuple[int | str, ...]
    n_shared: int


def consensus(histories: Mapping[int | str, History], n_candidates_per_block: Sequence[int]) -> Consensus:
    """The architecture with the best mean fitness over the folds' searches.

    histories: for each fold (architecture, fitness) of every evaluation, in the order of the search.
    n_candidates_per_block: choices at each block.

    Among the architectures that every fold evaluated, the one with the best mean wins (of equals, the first that the
    first fold evaluated). Searches with the same seed share at least their random generation. If nothing is shared,
    each block takes the candidate that did best on average over the folds, where a candidate's mean in a fold is that
    of the architectures holding it less the mean of all, so that a candidate missing from an easy fold is not punished;
    of equals the lower index. That ignores how blocks interact, and its fitness is unknown. Undefined fitness (NaN) is
    left out throughout.

    Raises ValueError for fewer than two folds, a fold without any defined fitness, or architectures of another network.
    """
    if len(histories) < 2:
        found = f"only fold {next(iter(histories))} has one" if histories else "no fold has one"
        raise ValueError(
            f"a consensus needs the searches of at least two folds, {found}; run `slicemamba search` for more folds"
        )
    defined = {fold: _defined(fold, history, n_candidates_per_block) for fold, history in histories.items()}
    folds = tuple(defined)
    first, *others = defined.values()
    shared = {a: math.fsum(d[a] for d in defined.values()) / len(folds) for a in first if all(a in d for d in others)}
    if shared:
        best = max(shared, key=shared.__getitem__)  # the first of equals
        return Consensus(best, shared[best], SHARED, folds, len(shared))
    per_block = tuple(_best_candidate(block, n, defined) for block, n in enumerate(n_candidates_per_block))
    return Consensus(per_block, None, PER_BLOCK, folds, 0)


def _defined(fold: int | str, history: History, n_candidates_per_block: Sequence[int]) -> dict[Architecture, float]:
    fitness = {tuple(architecture): value for architecture, value in history if not math.isnan(value)}
    if not fitness:
        raise ValueError(f"the search of fold {fold} has no evaluation with a defined fitness; run it first")
    for architecture in fitness:
        fits = len(architecture) == len(n_candidates_per_block) and all(
            0 <= index < n for index, n in zip(architecture, n_candidates_per_block, strict=True)
        )
        if not fits:
            raise ValueError(
                f"the search of fold {fold} evaluated {architecture}, which is not of a network with "
                f"{len(n_candidates_per_block)} blocks of {max(n_candidates_per_block)} candidates; search it again"
            )
    return fitness


def _best_candidate(block: int, n_candidates: int, defined: Mapping[int | str, Mapping[Architecture, float]]) -> int:
    """The candidate with the best mean advantage over the folds in which it was evaluated; 0 if none was."""
    advantages: list[list[float]] = [[] for _ in range(n_candidates)]
    for fitness in defined.values():
        mean_of_all = np.mean(list(fitness.values()))
        for candidate in range(n_candidates):
            holding = [value for architecture, value in fitness.items() if architecture[block] == candidate]
            if holding:
                advantages[candidate].append(float(np.mean(holding) - mean_of_all))
    means = [math.fsum(a) / len(a) if a else -math.inf for a in advantages]
    return max(range(n_candidates), key=means.__getitem__)
