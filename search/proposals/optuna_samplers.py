"""Proposals of Optuna's samplers.

A seeded sampler is asked for a whole generation, which is told to a study in memory when it is evaluated, in the order
in which it was proposed. So the proposals do not depend on how many processes evaluate, nor in which order, and a
search that continues asks and tells from the beginning, without evaluating, and arrives where it was.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nnunetv2_slicemamba.search.ledger.storage import quiet_optuna
from nnunetv2_slicemamba.search.ledger.trials import choices_of, directions_of, values_of
from nnunetv2_slicemamba.search.proposals.evolution import propose
from nnunetv2_slicemamba.search.records import NSGA2_ORIGIN, RANDOM, TPE_ORIGIN, Proposal, Record
from nnunetv2_slicemamba.search.settings import NSGA2, TPE, SearchSettings
from nnunetv2_slicemamba.slicing.candidates import Architecture

if TYPE_CHECKING:
    import optuna

# How often a sampler may repeat itself before a new architecture is drawn at random in its stead.
ATTEMPTS = 20
_EXCESS = "excess"  # cost above the limit; what is not above 0 is feasible


class OptunaProposals:
    """The proposals of one of Optuna's samplers, all distinct.

    A sampler that asks for an architecture again is told that this trial failed, which all of them leave out, and is
    asked anew; after ATTEMPTS an architecture that is new is drawn at random. An undefined fitness is a failed trial.
    A cost is a second value where the search minimises it; its limit is Optuna's constraint.
    """

    def __init__(self, settings: SearchSettings, n_candidates_per_block: Sequence[int]) -> None:
        import optuna

        self._settings = settings
        self._cost = settings.cost
        self._n_candidates = tuple(n_candidates_per_block)
        self._choices = choices_of(n_candidates_per_block)
        self._seen: dict[Architecture, None] = {}
        self._asked: list[optuna.trial.Trial] = []
        with quiet_optuna():
            directions = directions_of(self._cost)
            self._study = optuna.create_study(directions=directions, sampler=_sampler(settings))

    def __call__(self, generation: int, records: Sequence[Record]) -> list[Proposal]:
        """A population of proposals; fewer, in the end none, when they run out.

        records: of all earlier generations in order, those of the last proposals among them.
        """
        proposals = []
        with quiet_optuna():
            for trial, record in zip(self._asked, records[len(records) - len(self._asked) :], strict=True):
                self._tell(trial, record)
            self._asked = []
            for _ in range(self._settings.population):
                asked = self._next()
                if asked is None:
                    break
                self._asked.append(asked[0])
                proposals.append(asked[1])
        return proposals

    def _next(self) -> tuple[optuna.trial.Trial, Proposal] | None:
        for _ in range(ATTEMPTS):
            trial, architecture = self._ask()
            if architecture not in self._seen:
                return trial, self._new(architecture, _ORIGINS.get(self._settings.sampler, RANDOM))
            self._fail(trial)
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

    def _tell(self, trial: optuna.trial.Trial, record: Record) -> None:
        if math.isnan(record.fitness):
            self._fail(trial)
            return
        if self._cost is not None and self._cost.limit is not None:
            assert record.cost is not None
            excess = record.cost - self._cost.limit
            trial.set_user_attr(_EXCESS, excess)
            if hasattr(trial, "set_constraint"):  # Optuna 4 asks its sampler's constraints_func instead
                trial.set_constraint(_EXCESS, excess)
        self._study.tell(trial, values_of(record, len(self._study.directions) > 1))

    def _fail(self, trial: optuna.trial.Trial) -> None:
        import optuna

        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)


_ORIGINS = {TPE: TPE_ORIGIN, NSGA2: NSGA2_ORIGIN}


def _sampler(settings: SearchSettings) -> optuna.samplers.BaseSampler:
    from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler
    from optuna.trial import Trial

    constrained: dict[str, Any] = {}
    if settings.cost is not None and settings.cost.limit is not None and not hasattr(Trial, "set_constraint"):
        constrained["constraints_func"] = lambda trial: (trial.user_attrs[_EXCESS],)
    if settings.sampler == TPE:
        return TPESampler(seed=settings.seed, n_startup_trials=settings.population, constant_liar=True, **constrained)
    if settings.sampler == NSGA2:
        return NSGAIISampler(
            population_size=settings.population,
            mutation_prob=settings.mutation_probability,
            seed=settings.seed,
            **constrained,
        )
    return RandomSampler(seed=settings.seed)
