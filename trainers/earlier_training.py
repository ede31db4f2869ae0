"""Checkpoints that an earlier training left in a fold's folder: a new training writes over none of them."""

from __future__ import annotations

import itertools
from pathlib import Path

from nnunetv2_slicemamba.common.checkpoint_names import FINAL, UNFINISHED
from nnunetv2_slicemamba.common.folders import InputError

FOLDER = "earlier_training_{}"


def refuse_finished(folder: Path) -> None:
    """Raises InputError if a finished training is in a fold's folder, where one is about to begin at epoch 0."""
    if (folder / FINAL).exists():
        raise InputError(
            f"{folder / FINAL} is a finished training, and a new one would write over it: validate it with --val, "
            f"continue it with --c, or move or delete the folder {folder} to train anew"
        )


def set_aside_unfinished(folder: Path) -> Path | None:
    """Moves the checkpoints of a training that has not ended into a new folder beside them; None if there are none."""
    left = [folder / name for name in UNFINISHED if (folder / name).exists()]
    if not left:
        return None
    aside = next(path for number in itertools.count(1) if not (path := folder / FOLDER.format(number)).exists())
    aside.mkdir()
    for file in left:
        file.rename(aside / file.name)
    return aside
