"""An estimate of a search's cost: some paths are timed on the real cases, and nothing is written."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track

from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.durations import duration_text
from nnunetv2_slicemamba.search.ledger.ledger import read_ledger
from nnunetv2_slicemamba.search.ledger.storage import LedgerError, NoSearchError, location_of
from nnunetv2_slicemamba.search.proposals.evolution import propose
from nnunetv2_slicemamba.search.run import PreparedSearch, SearchOptions, prepare_search
from nnunetv2_slicemamba.search.settings import SearchSettings
from nnunetv2_slicemamba.slicing.candidates import Architecture

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder

# Paths differ little in cost: five tell it, and three do where five would take long.
TIMED, AT_LEAST, ENOUGH_SECONDS = 5, 3, 60.0


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
    def median(self) -> float:
        """Seconds for one architecture."""
        return statistics.median(self.seconds)

    @property
    def left(self) -> int:
        """Architectures that are still to be evaluated."""
        return max(self.architectures - self.kept, 0)

    def lines(self) -> list[str]:
        """The estimate for people to read."""
        spread = f"median of {len(self.seconds)} paths; {min(self.seconds):.3g} to {max(self.seconds):.3g} s"
        ledger = self.refused or f"{self.kept} of them are in {self.location}, {self.left} are left"
        return [
            f"architectures:  {self.architectures}, each on {self.cases} {self.kind} cases",
            f"ledger:         {ledger}",
            f"seconds each:   {self.median:.3g} ({spread})",
            f"total:          {duration_text(self.median * self.architectures)}; "
            f"what is left: {duration_text(self.median * self.left)}",
        ]


def estimate_cost(
    folder: SupernetFolder,
    settings: SearchSettings,
    device: torch.device,
    options: SearchOptions | None = None,
    console: Console | None = None,
) -> CostEstimate:
    """Loads a fold's supernet and times some paths; arguments and errors as search_fold's, but nothing is written."""
    options = options or SearchOptions()
    prepared = prepare_search(folder, settings, device)
    storage = prepared.storage(options.storage)
    kept, refused = kept_in(prepared, storage, options.study, options.discard)
    n_candidates = prepared.fingerprint.n_candidates_per_block
    paths = propose(SearchSettings(TIMED + 1, 0, seed=settings.seed), n_candidates, 0, [])
    measured_on = prepared.fold.measured_on
    assert measured_on.number is not None
    return CostEstimate(
        architectures=min(settings.evaluations, math.prod(n_candidates)),
        kept=kept,
        seconds=tuple(time_paths(prepared.fold, paths, console or PlainConsole())),
        cases=measured_on.number,
        kind=measured_on.kind,
        location=str(prepared.folder.search),
        refused=refused,
    )


def time_paths(evaluate: Callable[[Architecture], object], paths: list[Architecture], console: Console) -> list[float]:
    """Seconds that the evaluation of each path takes, the first left out: it loads, compiles and tunes."""
    seconds: list[float] = []
    for i, path in enumerate(track(paths, "timing", console=console, transient=True, disable=not console.is_terminal)):
        started = time.perf_counter()
        evaluate(path)
        if i > 0:
            seconds.append(time.perf_counter() - started)
        if len(seconds) >= AT_LEAST and sum(seconds) > ENOUGH_SECONDS:
            break
    return seconds


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
