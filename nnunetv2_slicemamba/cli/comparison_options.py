"""Options that `slicemamba compare` and `slicemamba rank` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Trainer = Annotated[str, typer.Option("-tr", "--trainer", help="Final trainer, e.g. SliceMambaTrainer_20epochs.")]
Supernet = Annotated[
    str | None, typer.Option("--supernet-trainer", help="Whose search is meant; default: the only one there is.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", help="Folder; default: nnUNet_results/DATASET/comparison/TRAINER__PLANS__CONFIG/fold_X."),
]
