"""`slicemamba rank`: compares the supernet's ranking of slicings with the ranking after retraining."""

from __future__ import annotations

import typer
from rich.console import Console

from nnunetv2_slicemamba.cli.comparison_options import Output, Supernet, Trainer, require_final_trainer
from nnunetv2_slicemamba.cli.options import PLANS, Configuration, Dataset, Device, Fold, Plans
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
    from nnunetv2_slicemamba.comparison.arms import supernet_of
    from nnunetv2_slicemamba.comparison.folder import comparison_folder
    from nnunetv2_slicemamba.comparison.rank import rank_arms, show_ranking
    from nnunetv2_slicemamba.planning.selection import choose_device, select
    from nnunetv2_slicemamba.search.evaluation.supernet_fold import require_supernet_trainer

    require_final_trainer(trainer)
    selection = select(dataset, configuration, fold, plans)
    require_folder("nnUNet_results", writable=True)
    supernet = supernet_trainer or supernet_of(selection)
    require_supernet_trainer(supernet)
    console = Console()
    ranking = rank_arms(comparison_folder(selection, trainer, output), supernet, choose_device(device), console)
    show_ranking(ranking, console)
