"""Preprocessed cases of a small data set, decompressed once and kept in memory."""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

import numpy as np
from blosc2 import NDArray
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

MOST_BYTES = 2**30  # of a loader's kept cases


class Case(NamedTuple):
    """A preprocessed case, as nnU-Net's datasets load it.

    image: (C, *spatial). seg: (1, *spatial). previous: spatial, a first stage's prediction. All are arrays, or
    compressed ones of which patches are read.
    """

    image: Any
    seg: Any
    previous: Any | None
    properties: dict[str, Any]

    @property
    def bytes(self) -> int:
        arrays = (self.image, self.seg, self.previous)
        return sum(array.nbytes for array in arrays if array is not None) + len(pickle.dumps(self.properties))


def cases_in_memory(loader: nnUNetDataLoader, most_bytes: int = MOST_BYTES) -> dict[str, Case]:
    """All cases of a loader by name, decompressed; none if they take more than `most_bytes`.

    To open a case, to read its properties and to decompress it is most of the work of reading a patch.
    """
    load, total = loader._data.load_case, 0
    for name in loader.indices:
        case = Case(*load(name))
        total += case.bytes
        # what is no file's may be another each time
        if total > most_bytes or not isinstance(case.image, NDArray):
            return {}
    return {name: _decompressed(Case(*load(name))) for name in loader.indices}


def _decompressed(case: Case) -> Case:
    image, seg, previous = (
        None if array is None else np.asarray(array[:]) for array in (case.image, case.seg, case.previous)
    )
    return Case(image, seg, previous, case.properties)
