"""How does a search run from wherever it was to its winner?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console

from .evolution import propose_with_origins
from .ledger import Ledger
from .progress import SearchProgress
from .records import Architecture, Evaluation, Proposal, Record, best_record, history_of
from .settings import SearchSettings
from .storage import LedgerError


class SearchFailedError(RuntimeError):
    """The search cannot tell any architecture from another."""


@dataclass(frozen=True)
class SearchResult:
    """What a finished search found.

    best: the record with the highest fitness ever evaluated, the first of equals. records: all of them, ordered by
    (generation, index). evaluated_now: how many of them this run added. exhausted: whether the search ended early
    because every architecture had been evaluated.
    """

    best: Record
    records: tuple[Record, ...]
    evaluated_now: int
    exhausted: bool


def run_search(
    evaluate: Callable[[Architecture], Evaluation],
    settings: SearchSettings,
    ledger: Ledger,
    progress: bool = True,
    console: Console | None = None,
) -> SearchResult:
    """Search the slicing: a random generation, then settings.generations bred ones (Fan et al., IEEE JBHI 2025).

    evaluate: gives an architecture's fitness. It must be deterministic for the result to be reproducible.
    ledger: what is in it is not evaluated again; what is evaluated is in it at once. Stopped anywhere, the search
    continues there and ends with the records and the winner of a search that was never stopped.
    progress: show a progress bar on `console` (None: standard output), a line per generation where that is no terminal.

    Raises ValueError if settings are not the ledger's, LedgerError if the ledger's evaluations are not those that this
    search proposes, SearchFailedError if no architecture of generation 0 has a defined fitness, and whatever `evaluate`
    raises. Ctrl-C says what is kept and how to continue, and raises KeyboardInterrupt.
    """
    if settings != ledger.fingerprint.settings:
        raise ValueError(f"the search has {settings}, its ledger was opened with {ledger.fingerprint.settings}")
    console = console or Console()
    stored = ledger.records()
    records: list[Record] = []
    evaluated_now = 0
    exhausted = False
    try:
        with SearchProgress(settings, len(stored), console, enabled=progress) as shown:
            for generation in range(settings.generations + 1):
                proposals = propose_with_origins(
                    settings, ledger.fingerprint.n_candidates_per_block, generation, history_of(records)
                )
                done = _check_stored(ledger, generation, proposals, [r for r in stored if r.generation == generation])
                if not proposals:
                    exhausted = True
                    break
                shown.generation_begins(generation, records)
                for index, proposal in enumerate(proposals):
                    stored_before = index in done
                    if not stored_before:
                        done[index] = ledger.add(_evaluate(evaluate, proposal, generation, index))
                        evaluated_now += 1
                    shown.add(done[index], stored_before)
                records.extend(done[index] for index in range(len(proposals)))
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


def _check_stored(
    ledger: Ledger, generation: int, proposals: Sequence[Proposal], stored: Sequence[Record]
) -> dict[int, Record]:
    """The stored records of a generation by index, if they are the generation that is proposed now."""
    for record in stored:
        proposed = proposals[record.index].architecture if record.index < len(proposals) else None
        if record.architecture != proposed:
            raise LedgerError(
                f"evaluation {record.index} of generation {generation} in {ledger.location} is of "
                f"{record.architecture}, this search proposes {proposed}: the ledger was changed, or another version "
                "of this package or of NumPy drew it. Continue with the versions that began it, or start anew "
                "(--discard)"
            )
    return {record.index: record for record in stored}
