"""`slicemamba search`: searches the slicing of a fold."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.options import (
    MANY,
    MANY_MINUTES,
    PLANS,
    SUPERNET_TRAINER,
    Configuration,
    Dataset,
    Device,
    Fold,
    Plans,
    SupernetTrainer,
    generations_option,
    next_run,
    number,
    population_option,
    say_next,
    seed_option,
    whole,
)
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.names import final_trainer_name


def add_commands(app: typer.Typer) -> None:
    app.command("search")(search)


def search(
    dataset: Dataset,
    configuration: Configuration,
    fold: Fold,
    plans: Plans = PLANS,
    trainer: SupernetTrainer = SUPERNET_TRAINER,
    seed: Annotated[int, seed_option("Seed of the evolution.")] = 0,
    population: Annotated[int, population_option()] = 50,
    generations: Annotated[int, generations_option()] = 20,
    parents: Annotated[int, whole("--parents", least=1, most=MANY, help="Best architectures that breed.")] = 10,
    mutants: Annotated[
        int | None, whole("--mutants", least=0, most=MANY, help="Mutants per generation; default: half.")
    ] = None,
    crossovers: Annotated[
        int | None, whole("--crossovers", least=0, most=MANY, help="Crossovers per generation; default: the rest.")
    ] = None,
    mutation: Annotated[
        float, number("--mutation", least=0, most=1, help="Probability that a mutant's gene is redrawn.")
    ] = 0.1,
    storage: Annotated[
        str | None,
        typer.Option("--storage", help="Optuna storage URL of the study; default: SQLite in the fold's folder."),
    ] = None,
    study: Annotated[str | None, typer.Option("--study", help="Name of the search, and of its study.")] = None,
    discard: Annotated[bool, typer.Option("--discard", help="Delete the search's evaluations and start anew.")] = False,
    sampler: Annotated[
        str,
        typer.Option("--sampler", help="evolution, or Optuna's random, tpe or nsga2; as many architectures each."),
    ] = "evolution",
    objective: Annotated[
        str,
        typer.Option(
            "--objective", help="dice, or dice-latency or dice-memory: little of a measured cost beside much Dice."
        ),
    ] = "dice",
    max_latency_ms: Annotated[
        float | None,
        number(
            "--max-latency-ms",
            above=0,
            most=1e7,
            help="Measure the latency of a forward pass; never choose what is slower.",
        ),
    ] = None,
    max_memory_mib: Annotated[
        float | None,
        number(
            "--max-memory-mib",
            above=0,
            most=1e7,
            help="Measure its peak GPU memory; never choose what needs more.",
        ),
    ] = None,
    time_budget: Annotated[
        float | None,
        number(
            "--time-budget",
            above=0,
            most=MANY_MINUTES,
            help="Minutes after which this call begins no further evaluation.",
        ),
    ] = None,
    cache_gb: Annotated[
        float | None,
        number(
            "--cache-gb",
            least=0,
            most=10_000,
            help="Memory for features that architectures share, in GB; 0: none. Default: a quarter of the GPU's free "
            "memory, 2 elsewhere.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Time a few paths, print what the search would cost, write nothing.")
    ] = False,
    figures_only: Annotated[
        bool, typer.Option("--figures-only", help="Only draw the figures of what is evaluated, and complete its study.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Searches the slicing of every block on Dice with the fold's trained supernet: on the fold's validation cases, or
    on those of `slicemamba holdout`.

    Every evaluation is kept as it is made; the same command continues a search that was stopped, or that --time-budget
    ended, which writes its best so far.

    Fitness is the mean Dice over cases, then over classes. A class that is absent from truth and prediction of a case
    is undefined there and left out of its mean; absent from all cases, it is left out of the fitness. If that holds for
    every class, the fitness is undefined (NaN): the architecture is kept and never chosen.

    With a cost the result is still the highest Dice, within the limit if there is one; what is cheaper for less Dice is
    listed and in pareto.json. Slicings hardly differ in latency and memory.
    """
    from nnunetv2_slicemamba.common.folders import InputError, require_folder
    from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
    from nnunetv2_slicemamba.planning.selection import choose_device, select
    from nnunetv2_slicemamba.search import SearchSettings
    from nnunetv2_slicemamba.search.run import SearchOptions, search_fold
    from nnunetv2_slicemamba.search.workers.processes import Process

    if sampler != "evolution" and (mutants is not None or crossovers is not None):
        raise InputError(
            f"--mutants and --crossovers are the evolution's, --sampler {sampler} has none; leave them out"
        )
    settings = SearchSettings(
        population,
        generations,
        parents,
        mutants,
        crossovers,
        mutation,
        seed,
        sampler,
        objective,
        max_latency_ms,
        max_memory_mib,
    )
    if dry_run and figures_only:
        raise InputError("--dry-run and --figures-only exclude each other; give one of them")
    folder = SupernetFolder(select(dataset, configuration, fold, plans).with_blocks(), trainer)
    options = SearchOptions(
        storage,
        study,
        discard,
        time_budget=None if time_budget is None else 60 * time_budget,
        cache_bytes=None if cache_gb is None else round(cache_gb * 2**30),
    )
    require_folder("nnUNet_results", writable=not dry_run)
    console = PlainConsole()
    if (dry_run or figures_only) and not Process.from_environment().is_writer:
        return
    if dry_run:
        from nnunetv2_slicemamba.search.dry_run import estimate_cost

        estimate = estimate_cost(folder, settings, choose_device(device), options, console)
        for line in estimate.lines():
            console.print(line)
        return
    if figures_only:
        from nnunetv2_slicemamba.search.figures.fold import redraw

        page = redraw(folder, storage, study, console)
        console.print(f"Figures: {page}")
        return
    found = search_fold(folder, settings, choose_device(device), options, console)
    if found is None:  # another process of the job writes
        return
    if not found.complete:
        console.print(
            f"The time budget of {time_budget:g} min is over: {found.evaluations} of {settings.evaluations} "
            f"architectures are evaluated and kept in {found.location}. The same command continues.",
        )
    if found.front is not None:
        from nnunetv2_slicemamba.search.choosing.pareto import front_table

        console.print(front_table(found.front, folder.selection.candidates))
    best = "Best fitness" if found.complete else "Best fitness so far"
    console.print(
        f"{best} {found.fitness:.4f} of {found.evaluations} architectures "
        f"({found.evaluated_now} evaluated now), on {found.measured_on.number} {found.measured_on.kind} cases.\n"
        f"Slicing: {found.file}\nFigures: {found.figures}" + (f"\nFront: {found.pareto}" if found.pareto else ""),
    )
    selection = folder.selection
    if selection.set_slicing_file.is_file():
        console.print(
            f"Trainings take the slicing that was set by hand; to take this one, delete {selection.set_slicing_file}"
        )
    if found.complete:
        say_next(console, next_run(selection, final_trainer_name(trainer)))
