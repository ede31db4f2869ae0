"""Searches of the folds: their evaluations and what they chose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.search import (
    FITNESS_DEFINITION,
    SLICING_FILE,
    STUDY_FILE,
    LedgerError,
    Record,
    SlicingFile,
    SlicingFileError,
    read_ledger,
    read_slicing_file,
    slicing_search_folder,
)
from nnunetv2_slicemamba.search.fitness import title_of
from nnunetv2_slicemamba.search.ledger.fold_ledger import read_fold_ledger
from nnunetv2_slicemamba.search.ledger.ledger import has_ledger
from nnunetv2_slicemamba.search.ledger.storage import sqlite_file
from nnunetv2_slicemamba.search.objectives import stored_cost
from nnunetv2_slicemamba.search.proposals.ranking import chosen_record
from nnunetv2_slicemamba.search.records import mean_fitness

# a consensus is made of searches
SEARCHED = ("search", "consensus")


@dataclass(frozen=True)
class Generation:
    """Fitness over a generation's evaluations, and the best of all up to its end; NaN where nothing is defined."""

    number: int
    evaluations: int
    low: float
    mean: float
    high: float
    best_so_far: float


@dataclass(frozen=True)
class Search:
    """A fold's slicing_search folder.

    records: of every evaluation, empty if the slicing was set by hand or the study cannot be read here. content: of
    best_slicing.json, None as long as a search runs. settings: of the search, empty if unknown. problems: what could
    not be read, one sentence each. fitness_title: what the fitness is.
    """

    records: tuple[Record, ...]
    content: SlicingFile | None
    settings: Mapping[str, Any]
    problems: tuple[str, ...]
    fitness_title: str = title_of(FITNESS_DEFINITION)

    @property
    def is_searched(self) -> bool:
        """Whether a search chose the slicing, or is about to."""
        return self.content is None or self.content.choice.how_chosen in SEARCHED

    @property
    def best(self) -> Record | None:
        """The record that the search would choose now, None without any."""
        return chosen_record(self.records, stored_cost(self.settings))

    @property
    def planned_evaluations(self) -> int | None:
        """Number of evaluations that the settings ask for; None if the settings are unknown."""
        if not {"population", "generations"} <= set(self.settings):
            return None
        return int(self.settings["population"]) * (int(self.settings["generations"]) + 1)

    @property
    def evaluations(self) -> int:
        """Number of evaluations; where they cannot be read, as the result's file says."""
        told = self.content.choice.details.get("evaluations", 0) if self.content else 0
        return len(self.records) or int(told)

    @property
    def best_fitness(self) -> float:
        """Fitness of the best evaluation, or the one in the result's file; NaN if there is none."""
        if self.best:
            return self.best.fitness
        fitness = self.content.choice.fitness if self.content else None
        return math.nan if fitness is None else fitness

    @property
    def seconds(self) -> float:
        """Time spent in evaluations."""
        return math.fsum(record.seconds for record in self.records)

    @property
    def generations(self) -> tuple[Generation, ...]:
        """Fitness per generation, in order."""
        found: list[Generation] = []
        so_far = math.nan
        for number in sorted({record.generation for record in self.records}):
            own = [record for record in self.records if record.generation == number]
            defined = [record.fitness for record in own if not math.isnan(record.fitness)]
            so_far = max((f for f in (so_far, *defined) if not math.isnan(f)), default=math.nan)
            low, high = min(defined, default=math.nan), max(defined, default=math.nan)
            found.append(Generation(number, len(own), low, mean_fitness(own), high, so_far))
        return tuple(found)


def read_search(fold_folder: Path) -> Search | None:
    """A supernet fold's search; None if it has no slicing_search folder with something in it."""
    folder = slicing_search_folder(fold_folder)
    study, file = folder / STUDY_FILE, folder / SLICING_FILE
    problems: list[str] = []
    records: list[Record] = []
    fingerprint: Mapping[str, Any] = {}
    content: SlicingFile | None = None
    if not has_ledger(study) and not file.is_file():
        return None
    if file.is_file():
        try:
            content = read_slicing_file(file)
        except SlicingFileError as error:
            problems.append(str(error))
    details = content.choice.details if content else {}
    ledger = study if has_ledger(study) else _elsewhere(details)
    if ledger is not None:
        try:
            fingerprint, records = (
                read_fold_ledger(folder) if ledger == study else read_ledger(ledger, details.get("study"))
            )
        except LedgerError as error:
            problems.append(str(error))
    elif content and content.choice.how_chosen == "search":
        where = details.get("ledger", "another storage")
        problems.append(f"The search's evaluations are in {where}, which is not read here: only its result is shown.")
    settings = fingerprint.get("settings") or details.get("settings") or {}
    definition = fingerprint.get("fitness_definition") or (content and content.fitness_definition) or FITNESS_DEFINITION
    return Search(tuple(records), content, settings, tuple(problems), title_of(definition))


def _elsewhere(details: Mapping[str, Any]) -> Path | None:
    """The SQLite file of a search with --storage, if it is on this machine; a report asks no database server."""
    told = str(details.get("ledger", ""))
    try:
        file = sqlite_file(told) if told else None
    except LedgerError:  # no URL, or one in memory
        return None
    # opening what is not there would make it
    return file if file is not None and has_ledger(file) else None
