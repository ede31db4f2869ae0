"""Which architecture comes next under one of Optuna's samplers?

The evaluations so far are told to a study in memory, in the order of the search, and the seeded sampler is asked for
the next one. A search that continues asks and tells from the beginning, without evaluating, and arrives where it was.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .evolution import propose
from .records import NSGA2_ORIGIN, RANDOM, TPE_ORIGIN, Architecture, Proposal, Record
from .settings import NSGA2, TPE, SearchSettings
from .storage import quiet_optuna
from .trials import choices_of

if TYPE_CHECKING:
    import optuna

# How often a sampler may repeat itself before a new architecture is drawn at random in its stead.
ATTEMPTS = 20


class OptunaProposals:
    """The proposals of one of Optuna's samplers, all distinct.

    A sampler that asks for an architecture again is told that this trial failed, which all of them leave out, and is
    asked anew; after ATTEMPTS an architecture that is new is drawn at random. An undefined fitness is a failed trial.
    """

    def __init__(self, settings: SearchSettings, n_candidates_per_block: Sequence[int]) -> None:
        import optuna

        self._settings = settings
        self._n_candidates = tuple(n_candidates_per_block)
        self._choices = choices_of(n_candidates_per_block)
        self._seen: dict[Architecture, None] = {}
        with quiet_optuna():
            self._study = optuna.create_study(direction="maximize", sampler=_sampler(settings))

    def __call__(self, generation: int, records: Sequence[Record]) -> Iterator[Proposal]:
        """A population of proposals, each made when it is asked for; fewer, in the end none, when they run out.

        records: all evaluations so far in order; the caller appends that of a proposal before it asks for the next.
        """
        for _ in range(self._settings.population):
            with quiet_optuna():
                asked = self._next()
            if asked is None:
                return
            trial, proposal = asked
            yield proposal
            self._tell(trial, records[-1].fitness)

    def _next(self) -> tuple[optuna.trial.Trial, Proposal] | None:
        for _ in range(ATTEMPTS):
            trial, architecture = self._ask()
            if architecture not in self._seen:
                return trial, self._new(architecture, _ORIGINS.get(self._settings.sampler, RANDOM))
            self._tell(trial, math.nan)
        one = dataclasses.replace(self._settings, population=1, mutants=0, crossovers=0, sampler="evolution")
        drawn = propose(one, self._n_candidates, len(self._seen), [(seen, math.nan) for seen in self._seen])
        if not drawn:
            return None
        self._study.enqueue_trial(dict(zip(self._choices, drawn[0], strict=True)))
        trial, architecture = self._ask()
        return trial, self._new(architecture, RANDOM)

    def _ask(self) -> tuple[optuna.trial.Trial, Architecture]:
        trial = self._study.ask(dict(self._choices))
        return trial, tuple(trial.params[name] for name in self._choices)

    def _new(self, architecture: Architecture, origin: str) -> Proposal:
        self._seen[architecture] = None
        return Proposal(architecture, origin)

    def _tell(self, trial: optuna.trial.Trial, fitness: float) -> None:
        import optuna

        if math.isnan(fitness):
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, fitness)


_ORIGINS = {TPE: TPE_ORIGIN, NSGA2: NSGA2_ORIGIN}


def _sampler(settings: SearchSettings) -> optuna.samplers.BaseSampler:
    from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler

    if settings.sampler == TPE:
        return TPESampler(seed=settings.seed, n_startup_trials=settings.population)
    if settings.sampler == NSGA2:
        return NSGAIISampler(
            population_size=settings.population, mutation_prob=settings.mutation_probability, seed=settings.seed
        )
    return RandomSampler(seed=settings.seed)
