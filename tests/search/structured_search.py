"""A search whose fitness has a known structure: one block decides most, one some, the others nothing."""

from __future__ import annotations

import zlib

import numpy as np

from nnunetv2_slicemamba.search import Record, SearchSettings, history_of, propose_with_origins
from nnunetv2_slicemamba.search.figures.data import FigureData, FoldChoice
from nnunetv2_slicemamba.search.figures.stages import Stage

CANDIDATES = ((2, 2), (2, 4), (4, 2), (4, 4))
STAGES = (Stage(1, 1, 8, (4, 4)), Stage(3, 2, 16, (8, 8)), Stage(1, 1, 32, (16, 16)))
N_BLOCKS = 9
DECISIVE, MINOR = 2, 6


def fitness(architecture: tuple[int, ...], fold: int = 0) -> float:
    """Between 0.7 and 0.9; the noise is a function of architecture and fold."""
    noise = np.random.default_rng(zlib.crc32(bytes(architecture)) + fold).normal(0, 0.004)
    return float(0.8 + 0.03 * architecture[DECISIVE] + 0.008 * (architecture[MINOR] == 1) + noise)


def records_of(fold: int = 0, population: int = 24, generations: int = 6) -> list[Record]:
    settings = SearchSettings(population=population, generations=generations, parents=5, seed=3)
    records: list[Record] = []
    for generation in range(generations + 1):
        proposals = propose_with_origins(settings, (4,) * N_BLOCKS, generation, history_of(records))
        records += [
            Record(p.architecture, fitness(p.architecture, fold), generation, i, p.origin, 1.0)
            for i, p in enumerate(proposals)
        ]
    return records


def slicing_of(architecture):
    return tuple(CANDIDATES[index] for index in architecture)


def data_of(folds: int = 3, records: list[Record] | None = None) -> FigureData:
    """Fold 0's search, beside those of the others."""
    own = records_of() if records is None else records
    choices = {}
    for fold in range(folds):
        found = own if fold == 0 else records_of(fold)
        best = max(found, key=lambda record: record.fitness)
        choices[str(fold)] = FoldChoice(slicing_of(best.architecture), history_of(found))
    return FigureData(
        "Dataset999_<b>Test</b>",
        "2d",
        "nnUNetSliceMambaSPlans",
        "SliceMambaSupernetTrainer",
        "0",
        own,
        CANDIDATES,
        STAGES,
        choices,
    )
