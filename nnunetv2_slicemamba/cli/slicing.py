"""`slicemamba slicing`: sets the slicing of a fold without a search."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.help import SEARCH, listed
from nnunetv2_slicemamba.cli.options import (
    PLANS,
    SUPERNET_TRAINER,
    Configuration,
    Dataset,
    Fold,
    Plans,
    SupernetTrainer,
)
from nnunetv2_slicemamba.common.console import PlainConsole

EXAMPLES = (
    "slicemamba slicing -d 501 -c 2d -f 0 --set 2x4",
    "slicemamba slicing -d 501 -c 3d_fullres -f 0 --set random:3",
)


def add_commands(app: typer.Typer) -> None:
    app.command("slicing", **listed(SEARCH, EXAMPLES))(slicing)


def slicing(
    dataset: Dataset,
    configuration: Configuration,
    fold: Fold,
    value: Annotated[
        str,
        typer.Option(
            "--set",
            metavar="SLICING",
            help="2x4 (2x4x2 in 3D), no-scan, random:SEED, consensus, front:K of the search's front, cheapest, "
            "random-at-budget:SEED, a FILE, or pareto.json:N.",
        ),
    ],
    plans: Plans = PLANS,
    trainer: SupernetTrainer = SUPERNET_TRAINER,
) -> None:
    """Set the slicing of a fold without a search."""
    from nnunetv2_slicemamba.common.folders import require_folder
    from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
    from nnunetv2_slicemamba.planning.selection import select
    from nnunetv2_slicemamba.search.choosing.set_slicing import set_slicing
    from nnunetv2_slicemamba.slicing.candidates import candidate_text, in_order

    folder = SupernetFolder(select(dataset, configuration, fold, plans).with_blocks(), trainer)
    require_folder("nnUNet_results", writable=True)
    file, choice = set_slicing(folder, value)
    shown = " ".join(map(candidate_text, in_order(choice.slicing)))
    PlainConsole().print(
        f"Slicing of {len(choice.slicing)} blocks ({choice.how_chosen}: {shown}) written to {file}",
    )
