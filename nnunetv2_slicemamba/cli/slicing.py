"""`slicemamba slicing`: sets the slicing of folds without a search."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.help import SEARCH, listed
from nnunetv2_slicemamba.cli.options import (
    PLANS,
    SUPERNET_TRAINER,
    Configuration,
    Dataset,
    Plans,
    SupernetTrainer,
    fold_option,
    next_run,
    say_next,
)
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.common.names import final_trainer_name

EXAMPLES = (
    "slicemamba slicing -d 501 -c 2d -f 0 1 2 3 4 --set 4x4",
    "slicemamba slicing -d 501 -c 3d_fullres -f 0 --set random:3",
)


def add_commands(app: typer.Typer) -> None:
    app.command("slicing", **listed(SEARCH, EXAMPLES))(slicing)


def slicing(
    dataset: Dataset,
    configuration: Configuration,
    folds: Annotated[list[str], fold_option("Folds, e.g. -f 0 1 2 3 4, or all.")],
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
    """Set the slicing of one or more folds without a search, before they are trained.

    The fixed slicing, 2x4 (2x4x2 in 3D) in all blocks, need not be set: folds without another one take it.
    """
    from nnunetv2_slicemamba.common.folders import require_folder
    from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
    from nnunetv2_slicemamba.planning.selection import select
    from nnunetv2_slicemamba.search.choosing.set_slicing import set_slicing
    from nnunetv2_slicemamba.slicing.candidates import candidate_text, in_order

    folders = [SupernetFolder(select(dataset, configuration, one, plans).with_blocks(), trainer) for one in folds]
    require_folder("nnUNet_results", writable=True)
    console = PlainConsole()
    for folder in folders:
        file, choice = set_slicing(folder, value)
        shown = " ".join(map(candidate_text, in_order(choice.slicing)))
        console.print(
            f"Slicing of {count(len(choice.slicing), 'block')} ({choice.how_chosen}: {shown}) written to {file}"
        )
    say_next(console, next_run(folders[0].selection, final_trainer_name(trainer), folds))
