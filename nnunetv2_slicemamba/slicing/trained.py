"""Slicing that a final network's checkpoint was trained with."""

from __future__ import annotations

from pathlib import Path

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.slicing.candidates import Slicing


def trained_slicing(checkpoint: Path) -> Slicing:
    """Thickness per block in a checkpoint of the user's own trainings; only the few bytes it takes are read.

    Such a checkpoint holds more than weights, and reading it runs code that it names, as nnU-Net itself does. Raises
    InputError if it cannot be read or is of another network.
    """
    import torch

    try:
        weights = torch.load(checkpoint, map_location="cpu", weights_only=False, mmap=True)["network_weights"]
        return tuple(tuple(row) for row in weights["slicing"].tolist())
    except Exception as error:  # whatever a damaged archive, a damaged pickle or another network raises
        raise InputError(
            f"{checkpoint} cannot be read as a checkpoint of SliceMambaTrainer ({type(error).__name__}: {error}); move "
            f"the folder {checkpoint.parent} away to train it anew"
        ) from error
