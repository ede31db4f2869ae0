"""`slicemamba rank`: compares the supernet's ranking of slicings with the ranking after retraining."""

from __future__ import annotations

import typer

from nnunetv2_slicemamba.cli.comparison_options import Output, Supernet, Trainer
from nnunetv2_slicemamba.cli.help import JUDGE, listed
from nnunetv2_slicemamba.cli.options import PLANS, Configuration, Dataset, Device, Fold, Plans
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.names import DEFAULT_TRAINER
from nnunetv2_slicemamba.common.verbosity import progress_console

EXAMPLES = (
    "slicemamba rank -d 501 -c 2d -f 0",
    "slicemamba rank -d 501 -c 2d -f 0 -tr SliceMambaTrainer_100epochs -device cpu",
)


def add_commands(app: typer.Typer) -> None:
    app.command("rank", **listed(JUDGE, EXAMPLES))(rank)


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
    """Measure how well the supernet ranks the slicings of a comparison.

    It prints Kendall's tau-b and Spearman's rho between the supernet's fitness and the Dice of the arms of `slicemamba
    compare`. The fitness is taken from the fold's search, or evaluated now where the search did not evaluate an arm's
    slicing. rank.json and rank.png are written into the comparison's folder. The supernet's checkpoint and three
    finished arms are needed.
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
    require_supernet_trainer(supernet.trainer, "--supernet-trainer")
    console = PlainConsole()
    ranking = rank_arms(
        comparison_folder(selection, trainer, output), supernet, choose_device(device), progress_console()
    )
    show_ranking(ranking, console)
