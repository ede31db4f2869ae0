"""The evolution's proposals: the architectures of the next generation.

Single-path one-shot evolution (Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling",
ECCV 2020) as SliceMamba uses it (Fan et al., IEEE JBHI 2025): the best architectures seen so far are parents of mutants
and crossovers. Here a generation is a pure function of (settings, generation, history), so that a search can stop
anywhere, be shared among workers, and end the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import numpy as np

from nnunetv2_slicemamba.search.proposals.ranking import Elite
from nnunetv2_slicemamba.search.records import CROSSOVER, MUTANT, RANDOM, History, Proposal, Record
from nnunetv2_slicemamba.search.settings import SearchSettings
from nnunetv2_slicemamba.slicing.candidates import Architecture

# Guo et al. stop breeding after ten attempts for each child asked for.
ATTEMPTS_PER_CHILD = 10
# random architectures of a generation that may be dearer than allowed before no more are drawn
MOST_REFUSED = 100_000
Allowed = Callable[[Architecture], bool]


def propose(
    settings: SearchSettings,
    n_candidates_per_block: Sequence[int],
    generation: int,
    history: History,
    no_block: int | None = None,
    allowed: Allowed | None = None,
) -> list[Architecture]:
    """The architectures of one generation; see propose_with_origins."""
    proposals = propose_with_origins(settings, n_candidates_per_block, generation, history, no_block, allowed)
    return [proposal.architecture for proposal in proposals]


def propose_with_origins(
    settings: SearchSettings,
    n_candidates_per_block: Sequence[int],
    generation: int,
    history: History,
    no_block: int | None = None,
    allowed: Allowed | None = None,
) -> list[Proposal]:
    """The architectures of one generation, and where each of them comes from.

    n_candidates_per_block: choices at each block, in network order. generation: 0 is random, every later one has
    settings.mutants mutants, settings.crossovers crossovers and random ones for the rest. history: (architecture,
    fitness) of all evaluations of the generations before this one, ordered by (generation, index). no_block: the
    candidate that leaves a block out, None for none; random architectures then have all numbers of blocks alike.
    allowed: whether an architecture may be proposed, None for all.

    Returns settings.population distinct architectures, none of them in the history: mutants first, then crossovers,
    then random ones, which also stand in for mutants and crossovers that cannot be found. Fewer, in the end none, when
    the architectures run out. The result depends on nothing but the arguments.

    Parents are the settings.parents best of the history, the earlier of equals first. An undefined fitness (NaN) never
    makes a parent; without any parent the generation is random.

    Raises ValueError for a negative generation, a block without candidates, or a history of another network.
    """
    n_candidates = _counts_of(n_candidates_per_block)
    seen = set(_checked([architecture for architecture, _ in history], n_candidates))
    return _generation(
        settings, n_candidates, generation, select_parents(history, settings.parents), seen, no_block, allowed
    )


class Evolution:
    """The generations of one search, one after the other: those of propose_with_origins with its ranked history.

    Each call looks at the records that are new, and at a few old ones: a generation takes as long late in a search as
    early in it.
    """

    def __init__(
        self,
        settings: SearchSettings,
        n_candidates_per_block: Sequence[int],
        no_block: int | None = None,
        allowed: Allowed | None = None,
    ) -> None:
        self._settings, self._no_block, self._allowed = settings, no_block, allowed
        self._n_candidates = _counts_of(n_candidates_per_block)
        self._elite = Elite(settings.cost, settings.parents)
        self._known = 0  # records
        self._seen: set[Architecture] = set()

    def __call__(self, generation: int, records: Sequence[Record]) -> list[Proposal]:
        """The architectures of a generation. records: of all earlier generations in order."""
        new = records[self._known :]
        self._known = len(records)
        self._seen.update(_checked([record.architecture for record in new], self._n_candidates))
        parents = [record.architecture for record in self._elite.add(new, records)]
        return _generation(
            self._settings, self._n_candidates, generation, parents, self._seen, self._no_block, self._allowed
        )


def _generation(
    settings: SearchSettings,
    n_candidates: np.ndarray,
    generation: int,
    best: Sequence[Architecture],
    seen: AbstractSet[Architecture],
    no_block: int | None,
    allowed: Allowed | None,
) -> list[Proposal]:
    if generation < 0:
        raise ValueError(f"generation is {generation}, it must be at least 0")
    rng = np.random.default_rng([settings.seed, generation])
    brood = _Brood(n_candidates, seen, settings.population, no_block, allowed)
    if generation > 0:
        parents = [np.array(parent) for parent in best]
        mutants, crossovers = settings.children
        if parents:
            brood.breed(MUTANT, mutants, lambda: _mutate(parents, n_candidates, settings.mutation_probability, rng))
        if len(parents) > 1:
            brood.breed(CROSSOVER, crossovers, lambda: _cross(parents, rng))
    brood.fill_with_random(rng)
    return brood.proposals


def _counts_of(n_candidates_per_block: Sequence[int]) -> np.ndarray:
    n_candidates = np.array([int(n) for n in n_candidates_per_block], dtype=np.int64)
    if n_candidates.size == 0 or n_candidates.min() < 1:
        raise ValueError(f"every block needs at least one candidate, got {list(n_candidates_per_block)} for the blocks")
    return n_candidates


def select_parents(history: History, n_parents: int) -> list[Architecture]:
    """The n_parents best architectures of the history, best first, the earlier of equals first; NaN is left out."""
    defined = [(architecture, fitness) for architecture, fitness in history if not math.isnan(fitness)]
    ranked = sorted(defined, key=lambda item: -item[1])  # a stable sort
    return [architecture for architecture, _ in ranked[:n_parents]]


@dataclass
class _Brood:
    """The architectures of a generation while they are gathered. Nothing in `seen` comes in, and nothing twice."""

    n_candidates: np.ndarray  # (blocks,)
    seen: AbstractSet[Architecture]
    wanted: int
    no_block: int | None = None
    allowed: Allowed | None = None
    proposals: list[Proposal] = field(default_factory=list)
    own: set[Architecture] = field(default_factory=set)
    refused: int = 0

    @property
    def n_known(self) -> int:
        """Architectures that cannot come in any more."""
        return len(self.seen) + len(self.own)

    def knows(self, architecture: Architecture) -> bool:
        """True for an architecture that was seen before or came in."""
        return architecture in self.seen or architecture in self.own

    def add(self, architecture: Architecture, origin: str) -> bool:
        """Adds a new architecture; False for one that is known or not allowed."""
        if self.knows(architecture):
            return False
        if self.allowed is not None and not self.allowed(architecture):
            self.refused += 1
            return False
        self.own.add(architecture)
        self.proposals.append(Proposal(architecture, origin))
        return True

    def breed(self, origin: str, n_children: int, draw: Callable[[], Architecture]) -> None:
        """Adds up to n_children new ones; converged parents may not have as many."""
        born = 0
        for _ in range(ATTEMPTS_PER_CHILD * n_children):
            if born == n_children:
                return
            born += self.add(draw(), origin)

    def fill_with_random(self, rng: np.random.Generator) -> None:
        """Fills the generation with new architectures drawn uniformly, as far as there are any."""
        total = math.prod(self.n_candidates.tolist())
        self.refused = 0
        while len(self.proposals) < self.wanted and self.n_known < total and self.refused < MOST_REFUSED:
            # Rejection needs two draws at most on average while half of the architectures are new; from then on the
            # rest is short enough to be listed.
            if 2 * self.n_known >= total:
                self._fill_from_the_rest(rng)
                return
            self.add(_draw(self.n_candidates, rng, self.no_block), RANDOM)

    def _fill_from_the_rest(self, rng: np.random.Generator) -> None:
        everything = itertools.product(*(range(n) for n in self.n_candidates.tolist()))
        rest = [architecture for architecture in everything if not self.knows(architecture)]
        for i in rng.permutation(len(rest)):
            if len(self.proposals) == self.wanted:
                return
            self.add(rest[i], RANDOM)


def _draw(n_candidates: np.ndarray, rng: np.random.Generator, no_block: int | None) -> Architecture:
    if no_block is None or n_candidates.min() < 2:
        return tuple(rng.integers(0, n_candidates).tolist())
    # as Supernet.sample_architecture draws the paths of the training
    kept = rng.integers(0, n_candidates - 1)
    kept += kept >= no_block
    skipped = rng.random(len(n_candidates)) < rng.random()
    return tuple(np.where(skipped, no_block, kept).tolist())


def _mutate(
    parents: list[np.ndarray], n_candidates: np.ndarray, probability: float, rng: np.random.Generator
) -> Architecture:
    parent = parents[int(rng.integers(len(parents)))]
    redrawn = rng.random(parent.size) < probability
    return tuple(np.where(redrawn, rng.integers(0, n_candidates), parent).tolist())


def _cross(parents: list[np.ndarray], rng: np.random.Generator) -> Architecture:
    one, other = int(rng.integers(len(parents))), int(rng.integers(len(parents) - 1))  # faster than rng.choice
    first, second = parents[one], parents[other + (other >= one)]
    return tuple(np.where(rng.random(first.size) < 0.5, first, second).tolist())


def _checked(architectures: Sequence[Sequence[int]], n_candidates: np.ndarray) -> list[Architecture]:
    """The architectures of a history; ValueError naming one that is none of this network's."""
    found = [tuple(map(int, architecture)) for architecture in architectures]
    other = next((genes for genes in found if len(genes) != n_candidates.size), None)
    if other is not None:
        raise ValueError(
            f"an architecture of the history has {len(other)} blocks, this network has {n_candidates.size}; "
            "the history is of another network"
        )
    genes = np.array(found, dtype=np.float64).reshape(-1, n_candidates.size)
    wrong = np.argwhere((genes < 0) | (genes >= n_candidates))
    if len(wrong):
        number, block = wrong[0].tolist()
        raise ValueError(
            f"an architecture of the history has candidate {found[number][block]} at block {block}, which has "
            f"candidates 0 to {n_candidates[block] - 1}; the history is of another network"
        )
    return found
