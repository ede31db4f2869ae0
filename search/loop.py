"""How does a search run from wherever it was to its winner?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from .evolution import propose_with_origins
from .ledger import Ledger
from .optuna_proposals import OptunaProposals
from .progress import SearchProgress
from .records import Architecture, Evaluation, Proposal, Record, best_record, history_of
from .settings import EVOLUTION, SearchSettings
from .storage import LedgerError
from .workers import Done, InTurn, Task, Workers


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


# Called for each generation with the records of all before it; proposes that generation.
Proposals = Callable[[int, Sequence[Record]], Iterable[Proposal]]


def run_search(
    evaluate: Callable[[Architecture], Evaluation] | Workers,
    settings: SearchSettings,
    ledger: Ledger,
    progress: bool = True,
    console: Console | None = None,
    time_budget: float | None = None,
) -> SearchResult:
    """Search the slicing: a random generation, then settings.generations bred ones (Fan et al., IEEE JBHI 2025), or as
    many architectures by the sampler that the settings name.

    evaluate: gives an architecture's fitness, or evaluates the architectures of a generation in any order. It must be
    deterministic for the result to be reproducible.
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
    workers = evaluate if isinstance(evaluate, Workers) else InTurn(evaluate)
    proposals = proposals_of(settings, ledger.fingerprint.n_candidates_per_block)
    records: list[Record] = []
    evaluated_now = 0
    exhausted = False

    def go_on() -> bool:
        return time.monotonic() < ends or not evaluated_now

    try:
        with SearchProgress(settings, len(stored), console, enabled=progress) as shown:
            for generation in range(settings.generations + 1):
                shown.generation_begins(generation, records)
                proposed = list(proposals(generation, records))
                found = _stored_of(ledger, stored, generation, proposed)
                for record in found.values():
                    shown.add(record, stored=True)
                tasks = [Task(generation, i, p.architecture) for i, p in enumerate(proposed) if i not in found]
                for done in workers(tasks, go_on):
                    record = ledger.add(_record_of(done, proposed[done.index], generation))
                    evaluated_now += 1
                    found[done.index] = record
                    shown.add(record, stored=False)
                if len(found) < len(proposed):
                    return _unfinished(ledger, evaluated_now)
                records.extend(found[index] for index in range(len(proposed)))
                if not proposed:
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


def _stored_of(
    ledger: Ledger, stored: Mapping[tuple[int, int], Record], generation: int, proposed: Sequence[Proposal]
) -> dict[int, Record]:
    """The evaluations of a generation that the ledger has already, which must be of what is proposed."""
    found = {}
    for (of, index), record in stored.items():
        if of == generation:
            proposal = proposed[index] if index < len(proposed) else None
            if proposal is None or proposal.architecture != record.architecture:
                raise _other_proposal(ledger, record, proposal)
            found[index] = record
    return found


def _record_of(done: Done, proposal: Proposal, generation: int) -> Record:
    return Record(
        architecture=proposal.architecture,
        fitness=done.evaluation.fitness,
        generation=generation,
        index=done.index,
        origin=proposal.origin,
        seconds=done.seconds,
        details=done.evaluation.details,
    )


def _other_proposal(ledger: Ledger, record: Record, proposal: Proposal | None) -> LedgerError:
    return LedgerError(
        f"evaluation {record.index} of generation {record.generation} in {ledger.location} is of "
        f"{record.architecture}, this search proposes {proposal.architecture if proposal else None}: the ledger was "
        "changed, or another version of this package, of NumPy or of Optuna drew it. Continue with the versions that "
        "began it, or start anew (--discard)"
    )
