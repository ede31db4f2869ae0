"""`slicemamba run`: from raw data to validated networks, for one or more folds."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nnunetv2_slicemamba.cli.options import (
    Configuration,
    Dataset,
    Device,
    generations_option,
    gpu_memory_option,
    number,
    population_option,
    seed_option,
    whole,
)
from nnunetv2_slicemamba.cli.plan import network_named
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.names import DEFAULT_TRAINER
from nnunetv2_slicemamba.common.other_processes import host
from nnunetv2_slicemamba.common.provenance import now
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.planning.sizes import NETWORKS, PAPER, RECOMMENDED, SIZES

if TYPE_CHECKING:
    from nnunetv2_slicemamba.pipeline.fold_steps import RunSettings
    from nnunetv2_slicemamba.pipeline.places import Place
    from nnunetv2_slicemamba.planning.selection import Selection


# options of the search: whoever gives one asks for it
SEARCH_OPTIONS = ("--supernet-trainer", "--seed", "--population", "--generations", "--holdout")


def add_commands(app: typer.Typer) -> None:
    app.command("run")(run)


def run(
    context: typer.Context,
    dataset: Dataset,
    configuration: Configuration,
    folds: Annotated[
        list[str] | None, typer.Option("-f", help="Folds, e.g. -f 0 1; default: all, mostly 0 to 4.")
    ] = None,
    slicing: Annotated[
        str | None,
        typer.Option(
            "--slicing", help="Slicing of all folds, as in 'slicemamba slicing --set': 2x4, random:3, a FILE, ..."
        ),
    ] = None,
    search: Annotated[
        bool, typer.Option("--search", help="Train a supernet and search the slicing of each fold first.")
    ] = False,
    size: Annotated[
        str | None,
        typer.Option(
            "--size", help=f"Size to plan, if there are no plans yet: {', '.join(SIZES)}; {PAPER} if left out."
        ),
    ] = None,
    plans: Annotated[
        str | None, typer.Option("-p", help="Plans' name; default: those of --size and --network, or the only ones.")
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            help=f"Network to plan, if there are no plans yet: {', '.join(NETWORKS)}; {RECOMMENDED} if left out.",
        ),
    ] = None,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="The same as --network hybrid.")] = False,
    gpu_memory: Annotated[float, gpu_memory_option()] = 8.0,
    trainer: Annotated[str, typer.Option("-tr", help="Final trainer, e.g. SliceMambaTrainer_100epochs.")] = (
        DEFAULT_TRAINER
    ),
    supernet_trainer: Annotated[
        str | None, typer.Option("--supernet-trainer", help="Default: the one with the final trainer's length.")
    ] = None,
    seed: Annotated[int, seed_option("Seed of the searches.")] = 0,
    population: Annotated[int, population_option()] = 50,
    generations: Annotated[int, generations_option()] = 20,
    holdout: Annotated[
        float | None,
        number(
            "--holdout",
            above=0,
            below=1,
            help="Part of each fold's training cases to choose on, see `slicemamba holdout`.",
        ),
    ] = None,
    npz: Annotated[bool, typer.Option("--npz", help="Also write validation probabilities, as nnUNetv2_train.")] = False,
    device: Device = "auto",
    predict: Annotated[
        bool,
        typer.Option("--predict", help="Also predict imagesTs with the folds' ensemble, and write the report."),
    ] = False,
    gpus: Annotated[
        int | None, whole("--gpus", least=1, most=1024, help="Run steps of several folds at once, on so many GPUs.")
    ] = None,
    per_gpu: Annotated[int, whole("--per-gpu", least=1, most=64, help="Steps at once per GPU, with --gpus.")] = 1,
    at_once: Annotated[
        int | None, whole("--at-once", least=1, most=1024, help="Run so many steps at once, without a GPU.")
    ] = None,
) -> None:
    """Plan, preprocess, train and validate: fold after fold, or several at once. With --search, search the slicings.

    What is finished is skipped, so that the same command continues a run that was stopped anywhere. Options of the
    search ask for one, too.
    """
    from nnunetv2_slicemamba.common.folders import InputError, require_folder
    from nnunetv2_slicemamba.common.names import check_plans_name
    from nnunetv2_slicemamba.pipeline.fold_steps import RunSettings, hold_out_all, run_fold, summary_dice, take
    from nnunetv2_slicemamba.pipeline.graph import ending_steps_of
    from nnunetv2_slicemamba.pipeline.places import places_for
    from nnunetv2_slicemamba.pipeline.slicings import check_slicings, set_slicings, tell_slicings
    from nnunetv2_slicemamba.planning.fold_folder import FoldFolder, SupernetFolder
    from nnunetv2_slicemamba.planning.present_plans import plans_to_use, size_and_network
    from nnunetv2_slicemamba.planning.selection import all_folds, choose_device, select
    from nnunetv2_slicemamba.search import SearchSettings
    from nnunetv2_slicemamba.trainers import TRAINERS
    from nnunetv2_slicemamba.trainers.roles import FINAL, INHERIT, SUPERNET

    console = PlainConsole()
    supernet = supernet_trainer or re.sub("^SliceMamba(Inherit)?Trainer", "SliceMambaSupernetTrainer", trainer)
    for name in (trainer, supernet):
        if name not in TRAINERS:
            raise InputError(f"there is no trainer {name!r}; there are: {', '.join(TRAINERS)}")
    if TRAINERS[trainer].role not in (FINAL, INHERIT) or TRAINERS[supernet].role != SUPERNET:
        raise InputError(f"-tr {trainer} must be a final trainer and --supernet-trainer {supernet} a supernet's")
    if size is not None and size not in SIZES:
        raise InputError(f"size {size!r} does not exist; give one of {', '.join(SIZES)}")
    asked = ["--search"] if search else search_options(context)
    asked += ["-tr"] if TRAINERS[trainer].role == INHERIT else []
    if slicing is not None and asked:
        raise InputError(f"--slicing names a slicing, {asked[0]} asks for a search: give one of the two")
    SearchSettings(population=population, generations=generations, seed=seed)
    chosen = choose_device(device).type
    places = places_for(chosen, gpus, per_gpu, at_once)
    require_folder("nnUNet_results", writable=True)
    planned = network_named(network, hybrid)
    preprocessed = require_folder("nnUNet_preprocessed") / name_of(dataset)
    plans_name = plans or plans_to_use(preprocessed, size, planned)
    check_plans_name(plans_name)

    size, planned = size_and_network(plans_name, size, planned)
    prepare(dataset, configuration, size, plans_name, gpu_memory, console, planned)
    # every fold is checked before the first one trains for days
    selections = [select(dataset, configuration, fold, plans_name) for fold in folds or all_folds(dataset)]
    if slicing is not None or asked:
        selections = [selection.with_blocks() for selection in selections]
    settings = RunSettings(
        trainer,
        supernet,
        chosen,
        ("--seed", str(seed), "--population", str(population), "--generations", str(generations)),
        npz,
        predict=predict,
        search=bool(asked),
    )
    if slicing is not None:
        set_slicings(selections, slicing, settings)
    check_slicings(selections, settings)
    endings = ending_steps_of(selections, settings)
    if holdout is not None:
        hold_out_all([SupernetFolder(selection, supernet) for selection in selections], holdout, console)
    console.print(f"Plans: {plans_name}")
    if not settings.search:
        tell_slicings(selections, settings, console)
    title = f"{trainer}, {configuration}"
    if places:
        run_several(selections, settings, places, console, title)
        dice = [summary_dice(FoldFolder(selection, trainer).summary) for selection in selections]
    else:
        dice = [run_fold(selection, settings, console) for selection in selections]
        for step in endings:
            take(step.look(), console)
    table = Table("fold", "validation Dice", title=title)
    for selection, value in zip(selections, dice, strict=True):
        table.add_row(str(selection.fold), f"{value:.4f}")
    console.print(table)
    tell_next(selections, settings, console)


def search_options(context: typer.Context) -> list[str]:
    """The options of a search that were given."""
    sources = {one.opts[0]: context.get_parameter_source(one.name or "") for one in context.command.params}
    return [flag for flag in SEARCH_OPTIONS if getattr(sources[flag], "name", "") == "COMMANDLINE"]


def tell_next(selections: Sequence[Selection], settings: RunSettings, console: Console) -> None:
    """Says what to type when a run has ended."""
    from nnunetv2_slicemamba.common.folders import named_folder
    from nnunetv2_slicemamba.pipeline.ending_steps import test_cases

    first, raw = selections[0], named_folder("nnUNet_raw")
    tests = 0 if raw is None else test_cases(raw / first.dataset)
    flags = ["-d", first.dataset, "-i", "INPUT", "-o", "OUTPUT", "-c", first.configuration, "-p", first.plans_name]
    flags += ["-tr", settings.trainer, "-f", *(str(selection.fold) for selection in selections)]
    predict = shell_line("nnUNetv2_predict", *flags, "-device", settings.device)
    console.print(f"Predict other images with the ensemble of the folds:\n  {predict}")
    if settings.predict:
        return
    if tests and first.configuration_manager.previous_stage_name is None:
        console.print(
            f"Next: {shell_line('slicemamba', *sys.argv[1:], '--predict')}\n"
            f"  predicts the {tests} test images, evaluates them if there is truth, and writes the report"
        )
    else:
        console.print(f"Next: {shell_line('slicemamba', 'report', '-d', first.dataset)}")


def run_several(
    selections: Sequence[Selection], settings: RunSettings, places: Sequence[Place], console: Console, title: str
) -> None:
    """Takes the steps of all folds in places at once."""
    from nnunetv2_slicemamba.pipeline.at_once import only_run, run_at_once
    from nnunetv2_slicemamba.pipeline.fold_steps import draw_split
    from nnunetv2_slicemamba.pipeline.graph import graph_of, run_folder, write_run
    from nnunetv2_slicemamba.planning.fold_folder import FoldFolder

    folder = run_folder(selections, settings)
    with only_run(folder):
        draw_split(FoldFolder(selections[0], settings.supernet_trainer if settings.search else settings.trainer))
        command = shell_line("slicemamba", *sys.argv[1:])
        write_run(folder, selections, settings, command=command, process=os.getpid(), host=host(), started=now())
        run_at_once(graph_of(selections, settings), places, folder, console, title)


def prepare(
    dataset: str,
    configuration: str,
    size: str,
    plans_name: str,
    gpu_memory: float,
    console: Console,
    network: str = RECOMMENDED,
) -> None:
    """Plans and preprocesses what is missing; plans that exist are used as they are."""
    from nnunetv2_slicemamba.common.commands import run_command
    from nnunetv2_slicemamba.common.folders import require_folder
    from nnunetv2_slicemamba.common.library_errors import library_errors
    from nnunetv2_slicemamba.planning.preprocessing import complete_data

    name = name_of(dataset)
    # data that are complete may lie where nothing can be written
    if (require_folder("nnUNet_preprocessed") / name / f"{plans_name}.json").is_file():
        look = "its output above may say more, and slicemamba plan --verify_dataset_integrity checks every file"
        with library_errors("nnunetv2", f"nnU-Net cannot preprocess {name}", look):
            complete_data(name, plans_name, configuration)
        return
    flags = ["-d", dataset, "--size", size, "--gpu-memory", str(gpu_memory), "-overwrite_plans_name", plans_name]
    flags += ["--network", network]
    run_command("slicemamba", ["plan", *flags, "-c", configuration], console)


def name_of(dataset: str) -> str:
    """The name of a dataset among the preprocessed ones, else among the raw ones; InputError if it is in neither."""
    from nnunetv2_slicemamba.common.folders import InputError, require_folder
    from nnunetv2_slicemamba.planning.selection import require_dataset

    try:
        return require_dataset(dataset, "nnUNet_preprocessed")
    except InputError:
        require_folder("nnUNet_preprocessed", writable=True)
        return require_dataset(dataset, "nnUNet_raw")
