"""Options that `slicemamba compare` and `slicemamba rank` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunetv2_slicemamba.common.names import DEFAULT_TRAINER

Trainer = Annotated[str, typer.Option("-tr", "--trainer", help="Final trainer, e.g. SliceMambaTrainer_20epochs.")]
Supernet = Annotated[
    str | None, typer.Option("--supernet-trainer", help="Whose search is meant; default: the only one there is.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", help="Folder; default: nnUNet_results/DATASET/comparison/TRAINER__PLANS__CONFIG/fold_X."),
]


def require_final_trainer(trainer: str) -> None:
    """Raises InputError listing the final trainers that start from scratch unless `trainer` is one."""
    from nnunetv2_slicemamba.common.folders import InputError
    from nnunetv2_slicemamba.trainers import TRAINERS

    # an arm's slicing lies beside no supernet that its weights could come from
    known = [name for name in TRAINERS if name.startswith(DEFAULT_TRAINER)]
    if trainer not in known:
        raise InputError(
            f"{trainer!r} is no final trainer that starts from scratch; give --trainer one of {', '.join(known)}"
        )
