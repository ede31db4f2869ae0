"""How does a search run from wherever it was to its winner?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console

from .evolution import propose_with_origins
from .ledger import Ledger
from .optuna_proposals import OptunaProposals
from .progress import SearchProgress
from .records import Architecture, Evaluation, Proposal, Record, best_record, history_of
from .settings import EVOLUTION, SearchSettings
from .storage import LedgerError


class SearchFailedError(RuntimeError):
    """The search cannot tell any architecture from another."""


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    best: the record with the highest fitness ever evaluated, the first of equals. records: all of them, ordered by
    (generation, index). evaluated_now: how many of them this run added. exhausted: whether the search ended early
    because every architecture had been evaluated. complete: False if the time budget ended it.
    """

    best: Record
    records: tuple[Record, ...]
    evaluated_now: int
    exhausted: bool
    complete: bool = True


# Called for each generation with the records so far, which it may watch grow; proposes that generation.
Proposals = Callable[[int, Sequence[Record]], Iterable[Proposal]]


def run_search(
    evaluate: Callable[[Architecture], Evaluation],
    settings: SearchSettings,
    ledger: Ledger,
    progress: bool = True,
    console: Console | None = None,
    time_budget: float | None = None,
) -> SearchResult:
    """Search the slicing: a random generation, then settings.generations bred ones (Fan et al., IEEE JBHI 2025), or as
    many architectures by the sampler that the settings name.

    evaluate: gives an architecture's fitness. It must be deterministic for the result to be reproducible.
    ledger: what is in it is not evaluated again; what is evaluated is in it at once. Stopped anywhere, the search
    continues there and ends with the records and the winner of a search that was never stopped.
    progress: show a progress bar on `console` (None: standard output), a line per generation where that is no terminal.
    time_budget: seconds; once they are over, no further evaluation begins, and the result is not complete.

    Raises ValueError if settings are not the ledger's, LedgerError if the ledger's evaluations are not those that this
    search proposes or it cannot be written, SearchFailedError if no architecture of generation 0, or none at the end of
    the time budget, has a defined fitness, and whatever `evaluate` raises. Ctrl-C says what is kept and how to
    continue, and raises KeyboardInterrupt.
    """
    if settings != ledger.fingerprint.settings:
        raise ValueError(f"the search has {settings}, its ledger was opened with {ledger.fingerprint.settings}")
    ends = math.inf if time_budget is None else time.monotonic() + time_budget
    console = console or Console()
    stored = {(record.generation, record.index): record for record in ledger.records()}
    proposals = proposals_of(settings, ledger.fingerprint.n_candidates_per_block)
    records: list[Record] = []
    evaluated_now = 0
    exhausted = False
    try:
        with SearchProgress(settings, len(stored), console, enabled=progress) as shown:
            for generation in range(settings.generations + 1):
                shown.generation_begins(generation, records)
                n_before = len(records)
                for index, proposal in enumerate(proposals(generation, records)):
                    record = stored.get((generation, index))
                    stored_before = record is not None
                    if record is None:
                        if time.monotonic() >= ends and evaluated_now:
                            return _unfinished(ledger, evaluated_now)
                        record = ledger.add(_evaluate(evaluate, proposal, generation, index))
                        evaluated_now += 1
                    elif record.architecture != proposal.architecture:
                        raise _other_proposal(ledger, record, proposal)
                    records.append(record)
                    shown.add(record, stored_before)
                _refuse_surplus(ledger, generation, len(records) - n_before)
                if len(records) == n_before:
                    exhausted = True
                    break
                shown.generation_ends()
                if best_record(records) is None:
                    raise SearchFailedError(_UNDEFINED.format(n=len(records)))
    except KeyboardInterrupt:
        n_kept = len(ledger.records())
        console.print(
            f"Stopped after {n_kept} of {settings.evaluations} evaluations; all {n_kept} are kept in "
            f"{ledger.location}. The same command continues from there.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        raise
    best = best_record(records)
    assert best is not None
    return SearchResult(best, tuple(records), evaluated_now, exhausted)


def proposals_of(settings: SearchSettings, n_candidates_per_block: Sequence[int]) -> Proposals:
    """What the sampler of the settings proposes."""
    if settings.sampler != EVOLUTION:
        return OptunaProposals(settings, n_candidates_per_block)

    def evolve(generation: int, records: Sequence[Record]) -> list[Proposal]:
        return propose_with_origins(settings, n_candidates_per_block, generation, history_of(records))

    return evolve


def _unfinished(ledger: Ledger, evaluated_now: int) -> SearchResult:
    records = ledger.records()
    best = best_record(records)
    if best is None:
        raise SearchFailedError(
            f"the time budget ended after {len(records)} evaluations, all with an undefined fitness (NaN). They "
            f"are kept in {ledger.location}; the same command continues"
        )
    return SearchResult(best, tuple(records), evaluated_now, exhausted=False, complete=False)


_UNDEFINED = (
    "the fitness of all {n} architectures evaluated is undefined (NaN): no validation case has foreground, and no "
    "prediction has any. Check the fold's validation cases and their labels, and that the supernet was trained"
)


def _evaluate(
    evaluate: Callable[[Architecture], Evaluation], proposal: Proposal, generation: int, index: int
) -> Record:
    started = time.perf_counter()
    evaluation = evaluate(proposal.architecture)
    if not isinstance(evaluation, Evaluation):
        raise TypeError(f"evaluate returned a {type(evaluation).__name__}, it must return an Evaluation")
    return Record(
        architecture=proposal.architecture,
        fitness=evaluation.fitness,
        generation=generation,
        index=index,
        origin=proposal.origin,
        seconds=time.perf_counter() - started,
        details=evaluation.details,
    )


def _other_proposal(ledger: Ledger, record: Record, proposal: Proposal | None) -> LedgerError:
    return LedgerError(
        f"evaluation {record.index} of generation {record.generation} in {ledger.location} is of "
        f"{record.architecture}, this search proposes {proposal.architecture if proposal else None}: the ledger was "
        "changed, or another version of this package, of NumPy or of Optuna drew it. Continue with the versions that "
        "began it, or start anew (--discard)"
    )


def _refuse_surplus(ledger: Ledger, generation: int, n_proposed: int) -> None:
    for record in ledger.records():
        if record.generation == generation and record.index >= n_proposed:
            raise _other_proposal(ledger, record, None)
