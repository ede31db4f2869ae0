"""`slicemamba holdout`: set aside training cases of a fold for its search."""

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
    flag,
    number,
    seed_option,
)
from nnunetv2_slicemamba.common.console import PlainConsole

EXAMPLES = (
    "slicemamba holdout -d 501 -c 2d -f 0",
    "slicemamba holdout -d 501 -c 2d -f 0 --fraction 0.3 --seed 1",
)


def add_commands(app: typer.Typer) -> None:
    app.command("holdout", **listed(SEARCH, EXAMPLES))(holdout)


def holdout(
    dataset: Dataset,
    configuration: Configuration,
    fold: Fold,
    plans: Plans = PLANS,
    trainer: SupernetTrainer = SUPERNET_TRAINER,
    fraction: Annotated[float, number("--fraction", above=0, below=1, help="Part of the fold's training cases.")] = 0.2,
    seed: Annotated[int, seed_option("Seed of the draw.")] = 0,
    remove: Annotated[bool, flag("--remove", help="Remove the holdout: choose on the validation cases again.")] = False,
) -> None:
    """Set training cases of a fold aside for its search.

    The search then chooses on them, and the fold's validation cases stay untouched. The supernet does not train on
    them. The final trainer uses them again. Call this before the supernet is trained.
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
