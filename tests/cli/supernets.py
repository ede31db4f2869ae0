"""Checkpoints of supernets that nothing was trained for."""

from __future__ import annotations

import json

import torch

from nnunetv2_slicemamba.planning.selection import Selection
from nnunetv2_slicemamba.trainers import TRAINERS


def save_untrained_supernet(selection: Selection, trainer_name: str) -> None:
    """Writes what a training of no epochs would leave in a fold's folder."""
    description = json.loads((selection.preprocessed_folder / "dataset.json").read_text())
    torch.manual_seed(0)
    trainer = TRAINERS[trainer_name](
        {**selection.plans, "continue_training": False},
        selection.configuration,
        selection.fold,
        description,
        torch.device("cpu"),
    )
    trainer.initialize()
    trainer.save_checkpoint(str(selection.fold_folder(trainer_name) / "checkpoint_final.pth"))
