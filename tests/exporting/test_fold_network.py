"""What is exported is one state of a fold's training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2_slicemamba.common.checkpoints import CheckpointError
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.hashing import sha256_of_file
from nnunetv2_slicemamba.exporting import fold_network
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder
from nnunetv2_slicemamba.planning.selection import select
from nnunetv2_slicemamba.trainers import TRAINERS

FINAL = "SliceMambaTrainer_1epoch"


def test_a_checkpoint_that_a_training_replaces_meanwhile_is_refused(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = FoldFolder(select("901", "2d", "0", "nnUNetSliceMambaSPlans"), FINAL)
    description = json.loads((folder.selection.preprocessed_folder / "dataset.json").read_text())
    plans = {**folder.selection.plans, "continue_training": False}
    trainer = TRAINERS[FINAL](plans, "2d", 0, description, torch.device("cpu"))
    trainer.initialize()
    checkpoint = folder.path / "checkpoint_best.pth"
    trainer.save_checkpoint(str(checkpoint))
    with pytest.raises(InputError, match=r"there is no checkpoint .*; give -chk one of checkpoint_best\.pth"):
        fold_network.find_checkpoint(folder, "checkpoint_final.pth")
    read = fold_network.load_fold_network(folder, checkpoint, 1)
    assert read.checkpoint_sha256 == sha256_of_file(checkpoint)

    load = fold_network.load_network

    def load_while_training(*arguments: Any) -> None:
        load(*arguments)
        trainer.current_epoch += 1
        trainer.save_checkpoint(str(checkpoint))

    monkeypatch.setattr(fold_network, "load_network", load_while_training)
    with pytest.raises(CheckpointError, match=f"{checkpoint} was replaced while it was read.*call the command again"):
        fold_network.load_fold_network(folder, checkpoint, 1)
