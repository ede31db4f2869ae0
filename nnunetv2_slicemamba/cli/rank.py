"""`slicemamba rank`: compares the supernet's ranking of slicings with the ranking after retraining."""

from __future__ import annotations

import typer

from nnunetv2_slicemamba.cli.comparison_options import Output, Supernet, Trainer
from nnunetv2_slicemamba.cli.options import PLANS, Configuration, Dataset, Device, Fold, Plans
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.names import DEFAULT_TRAINER


def add_commands(app: typer.Typer) -> None:
    app.command("rank")(rank)


def rank(
    dataset: Dataset,
    configuration: Configuration,
    fold: Fold,
    plans: Plans = PLANS,
    trainer: Trainer = DEFAULT_TRAINER,
    supernet_trainer: Supernet = None,
    output: Output = None,
    device: Device = "auto",
) -> None:
    """Says how well the supernet's fitness ranks the arms of 'slicemamba compare': Kendall's tau-b, Spearman's rho.

    The fitness is taken from the fold's search, or evaluated now where the search did not evaluate an arm's slicing.
    Writes rank.json and rank.png into the comparison's folder. Needs the supernet's checkpoint and three finished arms.
    """
    from nnunetv2_slicemamba.common.folders import require_folder
    from nnunetv2_slicemamba.comparison.arms import searched_supernet
    from nnunetv2_slicemamba.comparison.folder import comparison_folder
    from nnunetv2_slicemamba.comparison.rank import rank_arms, show_ranking
    from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
    from nnunetv2_slicemamba.planning.selection import choose_device, select
    from nnunetv2_slicemamba.trainers.roles import require_supernet_trainer, require_trainer_from_scratch

    require_trainer_from_scratch(trainer)
    selection = select(dataset, configuration, fold, plans).with_blocks()
    require_folder("nnUNet_results", writable=True)
    supernet = SupernetFolder(selection, supernet_trainer) if supernet_trainer else searched_supernet(selection)
    require_supernet_trainer(supernet.trainer)
    console = PlainConsole()
    ranking = rank_arms(comparison_folder(selection, trainer, output), supernet, choose_device(device), console)
    show_ranking(ranking, console)
