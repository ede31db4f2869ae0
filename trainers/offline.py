"""A fold's nnU-Net trainer that only reads: it knows split, data and labels, and trains nothing."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.nnunet_files import DATASET_JSON
from nnunetv2_slicemamba.common.silence import silently
from nnunetv2_slicemamba.planning.case_files import damaged_cases
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder
from nnunetv2_slicemamba.trainers.variants import TRAINERS


@dataclass(frozen=True)
class ValidationCase:
    """A preprocessed case in memory.

    data: (channels, *spatial) float32, with the previous stage's one-hot labels in a cascade.
    truth: (1, *spatial) integer labels.
    """

    name: str
    data: torch.Tensor
    truth: NDArray[np.integer]


def make_trainer(folder: FoldFolder, device: torch.device) -> Any:
    """The nnU-Net trainer of a fold, which writes no log."""
    silence = {"print_to_log_file": lambda self, *args, **kwargs: None}
    # under the same name, which nnU-Net makes the result folder's
    silent = type(folder.trainer, (TRAINERS[folder.trainer],), silence)
    selection = folder.selection
    return silent(
        # nnU-Net pops this key from the plans it is given
        plans={**selection.plans, "continue_training": True},
        configuration=selection.configuration,
        fold=selection.fold,
        dataset_json=DATASET_JSON.read(selection.preprocessed_folder / "dataset.json"),
        device=device,
    )


def load_cases(trainer: Any, keys: list[str]) -> list[ValidationCase]:
    """The preprocessed cases `keys`, in that order, in memory.

    Raises InputError naming a file that is damaged, or whose pickle holds more than plain values and NumPy arrays (see
    safe_cases).
    """
    from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot

    folder = Path(trainer.preprocessed_dataset_folder)
    dataset = trainer.dataset_class(
        trainer.preprocessed_dataset_folder,
        keys,
        folder_with_segs_from_previous_stage=trainer.folder_with_segs_from_previous_stage,
    )
    cases = []
    for key in keys:
        try:
            data, seg, previous, _ = dataset.load_case(key)
            array = np.asarray(data[:], dtype=np.float32)
            truth = np.asarray(seg[:])
        except _UNREADABLE as error:
            raise _damaged(folder, key, error) from error
        if trainer.is_cascaded:
            labels = trainer.label_manager.foreground_labels
            array = np.vstack((array, convert_labelmap_to_one_hot(previous[:], labels, output_dtype=array.dtype)))
        cases.append(ValidationCase(key, torch.from_numpy(array), truth))
    return cases


# what nnU-Net's readers and blosc2 raise
_UNREADABLE = (OSError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, EOFError, UnpicklingError)


def _damaged(folder: Path, case: str, error: Exception) -> InputError:
    again = "'slicemamba plan' with the options of these plans, or 'slicemamba run', makes the case anew"
    wrong = damaged_cases(folder, [case])
    if wrong:
        return InputError(f"{wrong[case]}: the preprocessed case {case!r} is damaged. {again}")
    return InputError(
        f"the preprocessed case {case!r} in {folder} cannot be read ({type(error).__name__}: {error}). Delete "
        f"its files there, {case}.*, and {again}"
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides what nnU-Net prints whenever a trainer or predictor is made: citations, settings, warnings."""
    with silently(errors=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
