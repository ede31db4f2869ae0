"""An estimate of a search's cost: some paths are timed together on the real cases, and nothing is written."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track

from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.common.durations import duration_text
from nnunetv2_slicemamba.search.ledger.ledger import read_ledger
from nnunetv2_slicemamba.search.ledger.storage import LedgerError, NoSearchError, location_of
from nnunetv2_slicemamba.search.proposals.evolution import propose
from nnunetv2_slicemamba.search.records import Task, tasks_of
from nnunetv2_slicemamba.search.run import PreparedSearch, SearchOptions, prepare_search
from nnunetv2_slicemamba.search.settings import SearchSettings
from nnunetv2_slicemamba.search.workers.base import BatchEvaluator

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder

# Three paths tell the cost where more would take longer than this, five where they would take longer than that; else
# as many as these: what a path shares with the one before it differs from path to path.
AT_LEAST, LONG_SECONDS = 3, 60.0
ENOUGH, ENOUGH_SECONDS = 5, 10.0
MOST = 24


@dataclass(frozen=True)
class CostEstimate:
    """The cost that a search would have.

    architectures: of the whole search. kept: how many of them are evaluated already. seconds: of each timed path.
    cases: how many each is evaluated on, and kind: which, as in MeasuredOn. refused: why the search would refuse what
    is evaluated, None if it would not. location: where that is, for people to read.
    """

    architectures: int
    kept: int
    seconds: tuple[float, ...]
    cases: int
    kind: str
    location: str
    refused: str | None = None

    @property
    def mean(self) -> float:
        """Seconds for one architecture."""
        return statistics.fmean(self.seconds)

    @property
    def left(self) -> int:
        """Architectures that are still to be evaluated."""
        return max(self.architectures - self.kept, 0)

    def lines(self, finalists: int | None = None, trainer: str = "") -> list[str]:
        """The estimate for people to read. finalists, trainer: of the trainings that follow, None for none."""
        spread = f"mean of {count(len(self.seconds), 'path')}; {min(self.seconds):.3g} to {max(self.seconds):.3g} s"
        ledger = self.refused or f"{self.kept} of them are in {self.location}, {self.left} are left"
        return [
            f"architectures:  {self.architectures}, each on {count(self.cases, f'{self.kind} case')}",
            f"ledger:         {ledger}",
            f"seconds each:   {self.mean:.3g} ({spread})",
            f"total:          {duration_text(self.mean * self.architectures)}; "
            f"what is left: {duration_text(self.mean * self.left)}",
            *([] if finalists is None else [self._finals(finalists, trainer)]),
        ]

    def _finals(self, finalists: int, trainer: str) -> str:
        trainings = count(min(finalists, self.architectures), "training")
        return f"finals:         at most {trainings} by {trainer} and their validation, which the total is without"


def estimate_cost(
    folder: SupernetFolder,
    settings: SearchSettings,
    device: torch.device,
    options: SearchOptions | None = None,
    console: Console | None = None,
) -> CostEstimate:
    """Loads a fold's supernet and times some paths; arguments and errors as search_fold's, but nothing is written."""
    options = options or SearchOptions()
    prepared = prepare_search(folder, settings, device, options.cache_bytes)
    storage = prepared.storage(options.storage)
    kept, refused = kept_in(prepared, storage, options.study, options.discard)
    n_candidates = prepared.fingerprint.n_candidates_per_block
    tasks = typical_tasks(settings, n_candidates, prepared.fingerprint.no_block)
    measured_on = prepared.fold.measured_on
    assert measured_on.number is not None
    return CostEstimate(
        architectures=min(settings.evaluations, math.prod(n_candidates)),
        kept=kept,
        seconds=tuple(time_paths(prepared.fold, tasks, console or PlainConsole())),
        cases=measured_on.number,
        kind=measured_on.kind,
        location=str(prepared.folder.search),
        refused=refused,
    )


def typical_tasks(
    settings: SearchSettings, n_candidates_per_block: Sequence[int], no_block: int | None = None
) -> list[Task]:
    """Neighbours in the order in which a search evaluates a bred generation, so that they share what those share."""
    population = min(max(settings.population, ENOUGH + 1), math.prod(n_candidates_per_block))
    like = SearchSettings(population, 1, settings.parents, seed=settings.seed)
    parents = propose(like, n_candidates_per_block, 0, [], no_block)
    # an arbitrary fitness makes arbitrary ones of them parents
    bred = (
        propose(like, n_candidates_per_block, 1, [(one, float(i)) for i, one in enumerate(parents)], no_block)
        or parents
    )
    return tasks_of(sorted(bred)[: MOST + 1])


def time_paths(evaluator: BatchEvaluator, tasks: Sequence[Task], console: Console) -> list[float]:
    """Seconds that each task takes when they are evaluated together, as the search does.

    The first is left out unless it is the only one: it loads, compiles and tunes.
    """
    seconds: list[float] = []

    def go_on() -> bool:
        n, spent = len(seconds) - 1, sum(seconds[1:])
        return not (n >= ENOUGH and spent > ENOUGH_SECONDS) and not (n >= AT_LEAST and spent > LONG_SECONDS)

    done = evaluator.evaluate(tasks, go_on)
    hidden = not console.is_terminal
    for one in track(done, "timing", total=len(tasks), console=console, transient=True, disable=hidden):
        seconds.append(one.seconds)
    return seconds[1:] or seconds


def kept_in(prepared: PreparedSearch, storage: str | Path, study: str | None, discard: bool) -> tuple[int, str | None]:
    """The number of this search's evaluations that are kept, and why they would be refused (None if not)."""
    if discard:
        return 0, None
    try:
        stored, records = read_ledger(storage, study or prepared.fingerprint.study_name, folder=prepared.folder.search)
    except NoSearchError:
        return 0, None
    except LedgerError as error:
        return 0, str(error)
    if not stored and records == []:
        return 0, None
    differences = prepared.fingerprint.differences(stored)
    if differences:
        return 0, f"{location_of(storage)} is of another search and would be refused: {'; '.join(differences)}"
    return len(records), None
