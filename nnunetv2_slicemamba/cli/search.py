"""`slicemamba search`: searches the slicing of a fold."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.completion import final_trainers
from nnunetv2_slicemamba.cli.help import SEARCH, listed
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
    choice,
    finalists_option,
    flag,
    generations_option,
    limit_option,
    next_run,
    number,
    population_option,
    say_next,
    seed_option,
    share_option,
    text,
    whole,
)
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.common.names import final_trainer_name
from nnunetv2_slicemamba.common.verbosity import is_verbose, progress_console

EXAMPLES = (
    "slicemamba search -d 501 -c 2d -f 0",
    "slicemamba search -d 501 -c 2d -f 0 --time-budget 120 --objective dice-latency",
)


def add_commands(app: typer.Typer) -> None:
    app.command("search", **listed(SEARCH, EXAMPLES))(search)


def search(
    dataset: Dataset,
    configuration: Configuration,
    fold: Fold,
    plans: Plans = PLANS,
    trainer: SupernetTrainer = SUPERNET_TRAINER,
    seed: Annotated[int, seed_option("Seed of the search.")] = 0,
    population: Annotated[int, population_option()] = 50,
    generations: Annotated[int, generations_option()] = 20,
    parents: Annotated[int, whole("--parents", least=1, most=MANY, help="Best architectures that breed.")] = 10,
    mutants: Annotated[
        int | None, whole("--mutants", least=0, most=MANY, help="Mutants per generation. Default: half the population.")
    ] = None,
    crossovers: Annotated[
        int | None, whole("--crossovers", least=0, most=MANY, help="Crossovers per generation. Default: the rest.")
    ] = None,
    mutation: Annotated[
        float, number("--mutation", least=0, most=1, help="Probability that a mutant's gene is redrawn.")
    ] = 0.1,
    storage: Annotated[
        str | None,
        text("--storage", metavar="URL", help="Optuna storage of the study. Default: SQLite in the fold's folder."),
    ] = None,
    study: Annotated[str | None, text("--study", metavar="NAME", help="Name of the search, and of its study.")] = None,
    discard: Annotated[bool, flag("--discard", help="Delete the search's evaluations and start anew.")] = False,
    sampler: Annotated[
        str,
        choice(
            "--sampler",
            names=("evolution", "random", "tpe", "nsga2"),
            help="Search algorithm; the last three are Optuna's. All evaluate the same number of architectures.",
        ),
    ] = "evolution",
    objective: Annotated[
        str,
        choice(
            "--objective",
            names=("dice", "dice-latency", "dice-memory", "dice-step"),
            help="Maximise Dice, or maximise Dice and minimise a measured cost.",
        ),
    ] = "dice",
    max_latency_ms: Annotated[
        float | None,
        limit_option("--max-latency-ms", "Measure the latency of a forward pass; never choose what is slower."),
    ] = None,
    max_latency: Annotated[
        float | None,
        share_option("--max-latency", "The same limit as a share of that with the fixed slicing, e.g. 60%."),
    ] = None,
    max_memory_mib: Annotated[
        float | None,
        limit_option(
            "--max-memory-mib", "Measure the peak GPU memory of a forward pass; never choose what needs more."
        ),
    ] = None,
    max_memory: Annotated[
        float | None,
        share_option("--max-memory", "The same limit as a share of that with the fixed slicing, e.g. 60%."),
    ] = None,
    max_step_ms: Annotated[
        float | None,
        limit_option(
            "--max-step-ms", "Measure what every block adds to a training step; evaluate nothing that is slower."
        ),
    ] = None,
    max_step: Annotated[
        float | None, share_option("--max-step", "The same limit as a share of that with the fixed slicing, e.g. 80%.")
    ] = None,
    time_budget: Annotated[
        float | None,
        number(
            "--time-budget",
            metavar="MINUTES",
            above=0,
            most=MANY_MINUTES,
            help="Begin no further evaluation after this time.",
        ),
    ] = None,
    finalists: Annotated[int | None, finalists_option()] = None,
    final_trainer: Annotated[
        str | None,
        text(
            "--final-trainer",
            metavar="TRAINER",
            help="Final trainer whose epochs --finalists divides by ten. Default: as long as the supernet's.",
            names=final_trainers,
        ),
    ] = None,
    cache_gb: Annotated[
        float | None,
        number(
            "--cache-gb",
            metavar="GB",
            least=0,
            most=10_000,
            help="Memory for features that architectures share. 0: none. Default: a quarter of the GPU's free memory, "
            "2 elsewhere.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, flag("--dry-run", help="Time a few paths, print what the search would cost, write nothing.")
    ] = False,
    figures_only: Annotated[
        bool, flag("--figures-only", help="Only draw the figures of what is evaluated, and complete its study.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Search the slicing of every block with the fold's trained supernet.

    It maximises Dice on the fold's validation cases, or on those of `slicemamba holdout`. Every evaluation is kept as
    it is made. The same command continues a search that was stopped. A search that --time-budget ended writes its best
    so far, and can be continued.

    Fitness is the mean Dice over cases, then over classes. A class that is absent from truth and prediction of a case
    is undefined there and left out of its mean. A class that is absent from all cases is left out of the fitness. If
    every class is, the fitness is undefined (NaN): the architecture is kept and never chosen.

    With a cost, the result is still the highest Dice, within the limit if there is one. Cheaper architectures with less
    Dice are listed and in pareto.json. Slicings hardly differ in latency and memory.
    """
    from nnunetv2_slicemamba.common.folders import InputError, require_folder
    from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
    from nnunetv2_slicemamba.planning.selection import choose_device, select
    from nnunetv2_slicemamba.search import SearchSettings
    from nnunetv2_slicemamba.search.budget import with_share
    from nnunetv2_slicemamba.search.objectives import LATENCY, MEMORY, STEP
    from nnunetv2_slicemamba.search.run import SearchOptions, search_fold
    from nnunetv2_slicemamba.search.workers.processes import Process
    from nnunetv2_slicemamba.trainers.roles import require_final_trainer, require_supernet_trainer
    from nnunetv2_slicemamba.trainers.settings import tenth_of

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
        max_step_ms,
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
        finals=finalists is not None,
    )
    final = final_trainer or final_trainer_name(trainer)
    require_supernet_trainer(trainer)
    require_final_trainer(final, "--final-trainer")
    require_folder("nnUNet_results", writable=not dry_run)
    shares = {LATENCY: max_latency, MEMORY: max_memory, STEP: max_step}
    for kind, share in shares.items():
        if share is not None and not figures_only:
            settings = with_share(settings, kind, share, folder, choose_device(device), keep=not dry_run)
    console = PlainConsole()
    if (dry_run or figures_only) and not Process.from_environment().is_writer:
        return
    if dry_run:
        from nnunetv2_slicemamba.search.dry_run import estimate_cost

        estimate = estimate_cost(folder, settings, choose_device(device), options, progress_console())
        for line in estimate.lines(finalists, tenth_of(final)):
            console.print(line)
        return
    if figures_only:
        from nnunetv2_slicemamba.search.figures.fold import redraw

        page = redraw(folder, storage, study, progress_console())
        console.print(f"Figures: {page}")
        return
    found = search_fold(folder, settings, choose_device(device), options, progress_console())
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
        f"{best} {found.fitness:.4f} of {count(found.evaluations, 'architecture')} "
        f"({found.evaluated_now} evaluated now), on {found.measured_on.in_words}.\n"
        f"Slicing: {found.file}\nFigures: {found.figures}" + (f"\nFront: {found.pareto}" if found.pareto else ""),
    )
    if found.chosen_in_finals:
        console.print(f"The slicing is still the one that finals chose; to have the search's best, delete {found.file}")
    if found.complete and finalists is not None:
        from nnunetv2_slicemamba.comparison.finals import hold_finals, show_finals

        chosen = hold_finals(
            folder, found, finalists, final, choose_device(device).type, progress_console(), is_verbose()
        )
        show_finals(chosen, console)
        console.print(f"Trainings of the finals: {chosen.choice.details['finalists']['folder']}")
    selection = folder.selection
    if selection.set_slicing_file.is_file():
        console.print(
            f"Trainings take the slicing that was set by hand; to take this one, delete {selection.set_slicing_file}"
        )
    if found.complete:
        say_next(console, next_run(selection, final))
