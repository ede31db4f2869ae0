"""Preprocessed cases whose pickles are examined before nnU-Net reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset, nnUNetDatasetBlosc2, nnUNetDatasetNumpy

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.safe_reading import check_array_pickle

REMEDY = "move it away and preprocess the dataset again with 'slicemamba plan'"
_examined: set[tuple[str, int, int]] = set()  # files, when they were last written, and their sizes


class ExaminedCases(nnUNetBaseDataset):
    """A mix-in for nnU-Net's data sets: InputError for a case whose pickle holds more than values and NumPy arrays."""

    def load_case(self, identifier: str) -> Any:
        examine(Path(self.source_folder) / f"{identifier}.pkl")
        return super().load_case(identifier)


class ExaminedBlosc2(ExaminedCases, nnUNetDatasetBlosc2):
    """Cases as nnU-Net writes them today."""


class ExaminedNumpy(ExaminedCases, nnUNetDatasetNumpy):
    """Cases as older versions of nnU-Net wrote them."""


def examined(dataset_class: Any) -> Any:
    """nnU-Net's class of data sets with examined pickles; anything else as it is."""
    return {nnUNetDatasetBlosc2: ExaminedBlosc2, nnUNetDatasetNumpy: ExaminedNumpy}.get(dataset_class, dataset_class)


def examine(file: Path) -> None:
    """Raises InputError unless a case's pickle can be read without running code; looks at every file once."""
    if not file.is_file():
        raise InputError(f"there is no file {file}; preprocess the dataset again with 'slicemamba plan'")
    status = file.stat()
    key = (str(file), status.st_mtime_ns, status.st_size)
    if key not in _examined:
        check_array_pickle(file, REMEDY)
        _examined.add(key)
