"""`slicemamba search` and `slicemamba slicing`: get a fold its best_slicing.json."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from nnunetv2_slicemamba.cli.options import (
    PLANS,
    SUPERNET_TRAINER,
    Configuration,
    Dataset,
    Device,
    Fold,
    Plans,
    SupernetTrainer,
)


def add_commands(app: typer.Typer) -> None:
    app.command("search")(search)
    app.command("slicing")(slicing)


def search(
    dataset: Dataset,
    configuration: Configuration,
    fold: Fold,
    plans: Plans = PLANS,
    trainer: SupernetTrainer = SUPERNET_TRAINER,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the evolution.")] = 0,
    population: Annotated[int, typer.Option("--population", help="Architectures per generation.")] = 50,
    generations: Annotated[int, typer.Option("--generations", help="Generations after the random one.")] = 20,
    parents: Annotated[int, typer.Option("--parents", help="Best architectures that breed.")] = 10,
    mutants: Annotated[int | None, typer.Option("--mutants", help="Mutants per generation; default: half.")] = None,
    crossovers: Annotated[
        int | None, typer.Option("--crossovers", help="Crossovers per generation; default: the rest.")
    ] = None,
    mutation: Annotated[float, typer.Option("--mutation", help="Probability that a mutant's gene is redrawn.")] = 0.1,
    storage: Annotated[
        str | None, typer.Option("--storage", help="Optuna storage URL; default: SQLite in the fold's folder.")
    ] = None,
    study: Annotated[str | None, typer.Option("--study", help="Name of the study in the storage.")] = None,
    discard: Annotated[bool, typer.Option("--discard", help="Delete the study's evaluations and start anew.")] = False,
    figures_only: Annotated[
        bool, typer.Option("--figures-only", help="Only draw the figures of what is evaluated, anew.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Searches the slicing of every block on the fold's validation Dice, with the fold's trained supernet.

    Every evaluation is kept as it is made; the same command continues a search that was stopped.
    """
    from nnunetv2_slicemamba.folders import require_folder
    from nnunetv2_slicemamba.search import SearchSettings
    from nnunetv2_slicemamba.search.figure_page import PAGE_FILE
    from nnunetv2_slicemamba.search.run import search_fold
    from nnunetv2_slicemamba.selection import choose_device, select

    settings = SearchSettings(population, generations, parents, mutants, crossovers, mutation, seed)
    selection = select(dataset, configuration, fold, plans)
    require_folder("nnUNet_results", writable=True)
    console = Console()
    if figures_only:
        from nnunetv2_slicemamba.search.figure_fold import redraw

        page = redraw(selection, trainer, storage, study, console)
        console.print(f"Figures: {page}", soft_wrap=True, highlight=False)
        return
    found = search_fold(
        selection,
        trainer,
        settings,
        choose_device(device),
        storage=storage,
        study=study,
        discard=discard,
        console=console,
    )
    console.print(
        f"Best fitness [bold]{found.fitness:.4f}[/] of {found.evaluations} architectures "
        f"({found.evaluated_now} evaluated now).\nSlicing: {found.file}\nFigure:  {found.figure}\n"
        f"Figures: {found.figure.with_name(PAGE_FILE)}",
        soft_wrap=True,
        highlight=False,
    )


def slicing(
    dataset: Dataset,
    configuration: Configuration,
    fold: Fold,
    value: Annotated[str, typer.Option("--set", help="2x4 (2x4x2 in 3D), random:SEED, consensus, or a FILE.")],
    plans: Plans = PLANS,
    trainer: SupernetTrainer = SUPERNET_TRAINER,
) -> None:
    """Writes a fold's best_slicing.json without a search."""
    from nnunetv2_slicemamba.folders import require_folder
    from nnunetv2_slicemamba.search.run import set_slicing
    from nnunetv2_slicemamba.selection import select

    selection = select(dataset, configuration, fold, plans)
    require_folder("nnUNet_results", writable=True)
    file, choice = set_slicing(selection, trainer, value)
    distinct = sorted(set(choice.slicing))
    shown = " ".join("x".join(map(str, thickness)) for thickness in distinct)
    Console().print(
        f"Slicing of {len(choice.slicing)} blocks ({choice.how_chosen}: {shown}) written to {file}",
        soft_wrap=True,
        highlight=False,
    )
