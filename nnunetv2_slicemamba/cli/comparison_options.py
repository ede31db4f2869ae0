"""Options that `slicemamba compare` and `slicemamba rank` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from nnunetv2_slicemamba.cli.completion import supernet_trainers
from nnunetv2_slicemamba.cli.options import output_option, text, trainer_option

Trainer = Annotated[str, trainer_option("Trainer, e.g. SliceMambaTrainer_20epochs.")]
Supernet = Annotated[
    str | None,
    text(
        "--supernet-trainer",
        metavar="TRAINER",
        help="Trainer of the supernet that was searched. Default: the only one there is.",
        names=supernet_trainers,
    ),
]
Output = Annotated[
    Path | None,
    output_option(
        "Folder of the comparison. Default: nnUNet_results/DATASET/comparison/TRAINER__PLANS__CONFIG/fold_X.", "FOLDER"
    ),
]
