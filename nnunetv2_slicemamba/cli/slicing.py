"""`slicemamba slicing`: sets the slicing of folds without a search."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.options import (
    PLANS,
    SUPERNET_TRAINER,
    Configuration,
    Dataset,
    Plans,
    SupernetTrainer,
    next_run,
    say_next,
)
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.names import final_trainer_name
from nnunetv2_slicemamba.slicing.candidates import thickness_text


def add_commands(app: typer.Typer) -> None:
    app.command("slicing")(slicing)


def slicing(
    dataset: Dataset,
    configuration: Configuration,
    folds: Annotated[list[str], typer.Option("-f", help="Folds, e.g. -f 0 1 2 3 4, or all.")],
    value: Annotated[
        str, typer.Option("--set", help="2x4 (2x4x2 in 3D), random:SEED, consensus, a FILE, or pareto.json:N.")
    ],
    plans: Plans = PLANS,
    trainer: SupernetTrainer = SUPERNET_TRAINER,
) -> None:
    """Sets the slicing of one or more folds without a search, before they are trained."""
    from nnunetv2_slicemamba.common.folders import require_folder
    from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
    from nnunetv2_slicemamba.planning.selection import select
    from nnunetv2_slicemamba.search.choosing.set_slicing import set_slicing

    folders = [SupernetFolder(select(dataset, configuration, one, plans).with_blocks(), trainer) for one in folds]
    require_folder("nnUNet_results", writable=True)
    console = PlainConsole()
    for folder in folders:
        file, choice = set_slicing(folder, value)
        shown = " ".join(map(thickness_text, sorted(set(choice.slicing))))
        console.print(f"Slicing of {len(choice.slicing)} blocks ({choice.how_chosen}: {shown}) written to {file}")
    say_next(console, next_run(folders[0].selection, final_trainer_name(trainer), folds))
