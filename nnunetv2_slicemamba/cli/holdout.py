"""`slicemamba holdout`: set aside training cases of a fold for its search."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.options import (
    PLANS,
    SUPERNET_TRAINER,
    Configuration,
    Dataset,
    Fold,
    Plans,
    SupernetTrainer,
    number,
    seed_option,
)
from nnunetv2_slicemamba.common.console import PlainConsole


def add_commands(app: typer.Typer) -> None:
    app.command("holdout")(holdout)


def holdout(
    dataset: Dataset,
    configuration: Configuration,
    fold: Fold,
    plans: Plans = PLANS,
    trainer: SupernetTrainer = SUPERNET_TRAINER,
    fraction: Annotated[float, number("--fraction", above=0, below=1, help="Part of the fold's training cases.")] = 0.2,
    seed: Annotated[int, seed_option("Seed of the draw.")] = 0,
    remove: Annotated[bool, typer.Option("--remove", help="Give the cases back: choose on validation again.")] = False,
) -> None:
    """Sets aside training cases on which the fold's search chooses, so that its validation cases stay untouched.

    The supernet does not train on them, the search measures on them, the final trainer uses them again. Call it before
    the supernet is trained.
    """
    from nnunetv2_slicemamba.common.folders import require_folder
    from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
    from nnunetv2_slicemamba.planning.selection import select
    from nnunetv2_slicemamba.search.holdout import hold_out, remove_holdout

    folder = SupernetFolder(select(dataset, configuration, fold, plans).with_blocks(), trainer)
    require_folder("nnUNet_results", writable=True)
    console = PlainConsole()
    if remove:
        removed = remove_holdout(folder)
        text = f"Removed {removed}; the search chooses on the validation cases." if removed else "There is no holdout."
    else:
        held_out, file, kept = hold_out(folder, fraction, seed)
        shown = ", ".join(held_out.cases[:5]) + (", ..." if len(held_out.cases) > 5 else "")
        n = len(held_out.cases)
        text = (
            f"Fold {folder.selection.fold}: {n} of {n + len(kept)} training cases are "
            f"held out ({shown}).\n{trainer} trains on the other {len(kept)}. Written to {file}"
        )
    console.print(text)
