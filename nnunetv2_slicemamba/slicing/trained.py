"""Slicing that a final network's checkpoint was trained with."""

from __future__ import annotations

from pathlib import Path

from nnunetv2_slicemamba.common.checkpoints import WEIGHTS, CheckpointError, read_training
from nnunetv2_slicemamba.slicing.candidates import Slicing, candidate_of_row


def trained_slicing(checkpoint: Path) -> Slicing:
    """What every block does in a checkpoint of a final network's training.

    Raises CheckpointError if it cannot be read, is damaged, or is of another network.
    """
    remedy = f"move the folder {checkpoint.parent} away to train it anew, or restore the file"
    slicing = read_training(checkpoint, remedy)[WEIGHTS].get("slicing")
    if slicing is None or slicing.ndim != 2:
        raise CheckpointError(f"{checkpoint} is not of SliceMambaTrainer: its weights hold no slicing; {remedy}")
    try:
        return tuple(map(candidate_of_row, slicing.tolist()))
    except ValueError as error:
        raise CheckpointError(f"{checkpoint} holds a slicing that is none: {error}; {remedy}") from error
