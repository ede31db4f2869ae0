"""The search's loop: from wherever it was to its winner, generation by generation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console

from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.search.ledger.ledger import Ledger
from nnunetv2_slicemamba.search.ledger.storage import LedgerError
from nnunetv2_slicemamba.search.objectives import MEMORY, Cost
from nnunetv2_slicemamba.search.progress import SearchProgress
from nnunetv2_slicemamba.search.proposals.evolution import Allowed, Evolution
from nnunetv2_slicemamba.search.proposals.optuna_samplers import OptunaProposals
from nnunetv2_slicemamba.search.proposals.ranking import cheapest_record, chosen_record
from nnunetv2_slicemamba.search.records import Done, Evaluation, Proposal, Record, Task, best_record
from nnunetv2_slicemamba.search.settings import EVOLUTION, SearchSettings
from nnunetv2_slicemamba.search.workers.base import SerialWorkers, Workers
from nnunetv2_slicemamba.slicing.candidates import Architecture


class SearchFailedError(RuntimeError):
    """The search cannot tell any architecture from another."""


@dataclass(frozen=True)
class SearchResult:
    """The outcome of a search.

    best: the record with the highest fitness ever evaluated, the first of equals; where a cost is measured, among those
    within its limit, and of equals the cheapest. records: all of them, ordered by
    (generation, index). evaluated_now: how many of them this run evaluated. exhausted: whether the search ended early
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
    allowed: Allowed | None = None,
) -> SearchResult:
    """Search the slicing: a random generation, then settings.generations bred ones (Fan et al., IEEE JBHI 2025), or as
    many architectures by the sampler that the settings name.

    evaluate: gives an architecture's fitness, and its cost where the settings have one, or evaluates the architectures
    of a generation in any order. It must be deterministic for the result to be reproducible; a measured latency is not.
    ledger: what is in it is not evaluated again; what is evaluated is in it at once. Stopped anywhere, the search
    continues there and ends with the records and the winner of a search that was never stopped.
    progress: show a progress bar on `console` (None: standard output), a line per generation where that is no terminal.
    time_budget: seconds; once they are over, no further evaluation begins, and the result is not complete.
    allowed: whether the evolution may propose an architecture, None for all.

    Raises ValueError if settings are not the ledger's, LedgerError if the ledger's evaluations are not those that this
    search proposes or it cannot be written, SearchFailedError if no architecture of generation 0, or none at the end of
    the time budget, has a defined fitness, or none at the end is within the cost's limit, and whatever `evaluate`
    raises. Ctrl-C says what is kept and how to continue, and raises KeyboardInterrupt.
    """
    if settings != ledger.fingerprint.settings:
        raise ValueError(f"the search has {settings}, its ledger was opened with {ledger.fingerprint.settings}")
    ends = math.inf if time_budget is None else time.monotonic() + time_budget
    console = console or PlainConsole()
    workers = evaluate if isinstance(evaluate, Workers) else SerialWorkers(evaluate)
    kept = ledger.fingerprint
    proposals = proposals_of(settings, kept.n_candidates_per_block, kept.no_block, allowed)
    records: list[Record] = []
    evaluated_now = 0
    exhausted, complete = False, True

    def go_on() -> bool:
        return time.monotonic() < ends or not evaluated_now

    try:
        with SearchProgress(settings, len(ledger.records()), console, enabled=progress) as shown:
            for generation in range(settings.generations + 1):
                shown.generation_begins(generation)
                tasks = [Task(generation, i, *proposal) for i, proposal in enumerate(proposals(generation, records))]
                found = _kept_of(ledger, generation, tasks)
                for record in found.values():
                    shown.add(record, stored=True)
                for done in workers([task for task in tasks if task.index not in found], go_on):
                    _check_cost(done, settings.cost)
                    record = ledger.add(Record.of(done), kept=done.kept)
                    evaluated_now += 1
                    found[record.index] = record
                    shown.add(record, stored=False)
                if len(found) < len(tasks):
                    complete = False
                    break
                records.extend(found[index] for index in range(len(tasks)))
                if not tasks:
                    exhausted = True
                    break
                shown.generation_ends()
                if generation == 0 and best_record(records) is None:
                    raise SearchFailedError(_UNDEFINED.format(n=len(records)))
    except KeyboardInterrupt:
        n_kept = len(ledger.records())
        _say(
            console,
            f"Stopped after {n_kept} of {settings.evaluations} evaluations; all {n_kept} are kept in "
            f"{ledger.location}. The same command continues from there.",
        )
        raise
    if progress:
        _tell_if_equal(console, ledger.records())
    if not complete:
        return _unfinished(ledger, settings.cost, evaluated_now)
    best = chosen_record(records, settings.cost)
    if best is None:
        raise SearchFailedError(_none_within_limit(settings.cost, records, ledger))
    return SearchResult(best, tuple(records), evaluated_now, exhausted)


def proposals_of(
    settings: SearchSettings,
    n_candidates_per_block: Sequence[int],
    no_block: int | None = None,
    allowed: Allowed | None = None,
) -> Proposals:
    """The proposals of the settings' sampler. no_block, allowed: see propose_with_origins."""
    if settings.sampler != EVOLUTION:
        return OptunaProposals(settings, n_candidates_per_block)
    return Evolution(settings, n_candidates_per_block, no_block, allowed)


def _tell_if_equal(console: Console, records: Sequence[Record]) -> None:
    if len(records) > 1 and len({record.fitness for record in records}) == 1:
        _say(
            console,
            f"Every one of the {len(records)} architectures has the same fitness, {records[0].fitness:.4f}: the search "
            "cannot tell them apart, and what it chooses is arbitrary. The supernet probably predicts nothing but "
            "background: look at its training (progress.png in its folder) and train it longer, or set a slicing "
            "without a search ('slicemamba slicing --set 2x4').",
        )


def _unfinished(ledger: Ledger, cost: Cost | None, evaluated_now: int) -> SearchResult:
    records = ledger.records()
    best = chosen_record(records, cost)
    if best is None:
        if best_record(records) is not None:
            raise SearchFailedError(
                f"the time budget ended early: {_none_within_limit(cost, records, ledger)}; or let the same command "
                "continue"
            )
        raise SearchFailedError(
            f"the time budget ended after {len(records)} evaluations, all with an undefined fitness (NaN). They "
            f"are kept in {ledger.location}; the same command continues"
        )
    return SearchResult(best, tuple(records), evaluated_now, exhausted=False, complete=False)


def _none_within_limit(cost: Cost | None, records: Sequence[Record], ledger: Ledger) -> str:
    cheapest = cheapest_record(records)
    assert cost is not None
    assert cost.limit is not None
    assert cheapest is not None
    assert cheapest.cost is not None
    lowest = "one with the least memory" if cost.kind == MEMORY else "fastest"
    return (
        f"none of the {len(records)} architectures evaluated is within {cost.flag} {cost.limit:g}: the {lowest}, "
        f"{cheapest.architecture}, has {cost.shown(cheapest.cost)} (fitness {cheapest.fitness:.4f}). All are kept in "
        f"{ledger.location}. Thicknesses hardly differ in cost: give a higher limit, which makes another search "
        "(--study NAME, or --discard), or train a smaller size of plans"
    )


_UNDEFINED = (
    "the fitness of all {n} architectures evaluated is undefined (NaN): no validation case has foreground, and no "
    "prediction has any. Check the fold's validation cases and their labels, and that the supernet was trained"
)


def _kept_of(ledger: Ledger, generation: int, tasks: Sequence[Task]) -> dict[int, Record]:
    """The evaluations of a generation that are kept already, by index; they must be of what is proposed."""
    found = {}
    for record in ledger.generation(generation):
        task = tasks[record.index] if record.index < len(tasks) else None
        if task is None or task.architecture != record.architecture:
            raise _other_proposal(ledger, record, task)
        found[record.index] = record
    for task in tasks:
        if task.index not in found and (recovered := ledger.recover(task)) is not None:
            found[task.index] = recovered
    return found


def _check_cost(done: Done, cost: Cost | None) -> None:
    if (done.evaluation.cost is None) != (cost is None):
        raise ValueError(
            f"the evaluation of {done.task.architecture} has cost {done.evaluation.cost}; evaluate must give one "
            f"exactly where the settings have one, which are for {cost.title if cost else 'none'}"
        )


def _other_proposal(ledger: Ledger, record: Record, task: Task | None) -> LedgerError:
    return LedgerError(
        f"evaluation {record.index} of generation {record.generation} in {ledger.location} is of "
        f"{record.architecture}, this search proposes {task.architecture if task else None}: the ledger was "
        "changed, or another version of this package, of NumPy or of Optuna drew it. Continue with the versions that "
        "began it, or start anew (--discard)"
    )


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
