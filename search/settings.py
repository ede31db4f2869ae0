"""Settings of the search: its size, its sampler and its objective."""

from __future__ import annotations

import math
import numbers
from dataclasses import asdict, dataclass
from typing import Any

from nnunetv2_slicemamba.search.objectives import DICE, Cost, cost_of

EVOLUTION, RANDOM_SAMPLER, TPE, NSGA2 = "evolution", "random", "tpe", "nsga2"
SAMPLERS = (EVOLUTION, RANDOM_SAMPLER, TPE, NSGA2)


@dataclass(frozen=True)
class SearchSettings:
    """Settings of the search; the defaults are the evolution of Fan et al., IEEE JBHI 2025: 1,050 evaluations.

    population: architectures per generation, the random generation 0 included.
    generations: generations after the random one; 0 makes the search a random one.
    parents: number of the best architectures seen so far that have children.
    mutants, crossovers: children of each kind per generation; what they leave of the population is random.
        None stands for half the population, rounded down, and for the rest of the population.
    mutation_probability: probability with which a mutant's gene is drawn anew.
    seed: of every draw of the search.
    sampler: "evolution", or one of Optuna's: "random" (uniform), "tpe" (whose first population is random) or "nsga2"
        (with this population and mutation probability). They propose as many distinct architectures as the evolution
        and use none of the other settings.
    objective: "dice", or "dice-latency", "dice-memory" or "dice-step": little of a cost, beside much Dice.
    max_latency_ms, max_memory_mib, max_step_ms: limits of a cost; what is above is never chosen, and above a step's
        never proposed by the evolution.

    Raises TypeError or ValueError naming the value, the rule and the remedy.
    """

    population: int = 50
    generations: int = 20
    parents: int = 10
    mutants: int | None = None
    crossovers: int | None = None
    mutation_probability: float = 0.1
    seed: int = 0
    sampler: str = EVOLUTION
    objective: str = DICE
    max_latency_ms: float | None = None
    max_memory_mib: float | None = None
    max_step_ms: float | None = None

    def __post_init__(self) -> None:
        _check_whole("population", self.population, 1)
        _check_whole("generations", self.generations, 0)
        _check_whole("parents", self.parents, 1)
        _check_whole("seed", self.seed, 0)
        cost_of(self.objective, self.max_latency_ms, self.max_memory_mib, self.max_step_ms)
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler is {self.sampler!r}, it must be one of {', '.join(SAMPLERS)}")
        if self.sampler == NSGA2 and self.population < 2:
            raise ValueError(f"population is {self.population}, nsga2 crosses two parents; give 2 or more")
        if self.mutants is None:
            object.__setattr__(self, "mutants", self.population // 2)
        mutants = _check_whole("mutants", self.mutants, 0)
        if self.crossovers is None:
            object.__setattr__(self, "crossovers", max(self.population - mutants, 0))
        crossovers = _check_whole("crossovers", self.crossovers, 0)
        if mutants + crossovers > self.population:
            raise ValueError(
                f"{mutants} mutants and {crossovers} crossovers are more than the population of {self.population}; "
                f"lower them, or give a population of at least {mutants + crossovers}"
            )
        probability = self.mutation_probability
        if isinstance(probability, bool) or not isinstance(probability, numbers.Real):
            raise TypeError(f"mutation_probability is {probability!r}, it must be a number from 0 to 1")
        if math.isnan(probability) or not 0 <= probability <= 1:
            raise ValueError(f"mutation_probability is {probability}, it must lie between 0 and 1; the default is 0.1")

    @property
    def evaluations(self) -> int:
        """Number of architectures that the whole search evaluates; fewer only if there are not so many."""
        return self.population * (self.generations + 1)

    @property
    def cost(self) -> Cost | None:
        """The cost that every architecture has beside its Dice; None for none."""
        return cost_of(self.objective, self.max_latency_ms, self.max_memory_mib, self.max_step_ms)

    @property
    def children(self) -> tuple[int, int]:
        """Numbers of (mutants, crossovers) in a generation."""
        assert self.mutants is not None
        assert self.crossovers is not None
        return self.mutants, self.crossovers

    def as_dict(self) -> dict[str, Any]:
        """Every setting that the sampler uses, by its name, as plain JSON values."""
        content = asdict(self)
        # what is left at its default is not kept, so that searches made before it existed go on
        unset = {"objective": DICE, "max_latency_ms": None, "max_memory_mib": None, "max_step_ms": None}
        costs = {name: content.pop(name) for name in unset}
        costs = {name: value for name, value in costs.items() if value != unset[name]}
        if self.sampler == EVOLUTION:
            del content["sampler"]  # as searches were kept before there were others, which go on
            return content | costs
        used = ["population", "generations", "seed", "sampler"]
        used += ["mutation_probability"] if self.sampler == NSGA2 else []
        return {name: content[name] for name in used} | costs


def _check_whole(name: str, value: Any, smallest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}, it must be a whole number")
    if value < smallest:
        raise ValueError(f"{name} is {value}, it must be at least {smallest}; give {smallest} or more")
    return value
