"""`slicemamba run`: the whole chain for one or more folds."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nnunetv2_slicemamba.cli.help import TRAIN, listed
from nnunetv2_slicemamba.cli.options import (
    Configuration,
    Dataset,
    Device,
    candidates_option,
    generations_option,
    gpu_memory_option,
    number,
    population_option,
    seed_option,
    share_option,
)
from nnunetv2_slicemamba.cli.place_options import AtOnce, Gpus, PerGpu
from nnunetv2_slicemamba.cli.plan import network_named
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.names import DEFAULT_TRAINER
from nnunetv2_slicemamba.common.other_processes import host
from nnunetv2_slicemamba.common.provenance import now
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.planning.sizes import NETWORKS, PAPER, SIZES, plans_name_of

if TYPE_CHECKING:
    from nnunetv2_slicemamba.pipeline.fold_steps import RunSettings
    from nnunetv2_slicemamba.pipeline.places import Place
    from nnunetv2_slicemamba.planning.selection import Selection


EXAMPLES = (
    "slicemamba run -d 501 -c 2d",
    "slicemamba run -d 501 -c 2d -f 0 1 -tr SliceMambaTrainer_100epochs --network hybrid --predict",
)


def add_commands(app: typer.Typer) -> None:
    app.command("run", **listed(TRAIN, EXAMPLES))(run)


def run(
    dataset: Dataset,
    configuration: Configuration,
    folds: Annotated[
        list[str] | None, typer.Option("-f", "--fold", metavar="FOLD", help="Folds, e.g. -f 0 1; default: 0 1 2 3 4.")
    ] = None,
    size: Annotated[
        str,
        typer.Option(
            "--size", metavar="|".join(SIZES), help=f"Size to plan, if there are no plans yet: {', '.join(SIZES)}."
        ),
    ] = PAPER,
    plans: Annotated[
        str | None, typer.Option("-p", "--plans", metavar="PLANS", help="Plans' name; default: those of --size.")
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            metavar="|".join(NETWORKS),
            help="Network to plan, if there are no plans yet; see `slicemamba plan`.",
        ),
    ] = None,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="The same as --network hybrid.")] = False,
    candidates: Annotated[
        str, candidates_option("Candidates to plan, if there are no plans yet; see `slicemamba plan`.")
    ] = "paper",
    gpu_memory: Annotated[float, gpu_memory_option()] = 8.0,
    trainer: Annotated[
        str,
        typer.Option("-tr", "--trainer", metavar="TRAINER", help="Final trainer, e.g. SliceMambaTrainer_100epochs."),
    ] = (DEFAULT_TRAINER),
    supernet_trainer: Annotated[
        str | None,
        typer.Option("--supernet-trainer", metavar="TRAINER", help="Default: the one with the final trainer's length."),
    ] = None,
    seed: Annotated[int, seed_option("Seed of the searches.")] = 0,
    population: Annotated[int, population_option()] = 50,
    generations: Annotated[int, generations_option()] = 20,
    budget: Annotated[
        float | None,
        share_option("--budget", "Share of the fixed network's training step that the chosen one may take, e.g. 60%."),
    ] = None,
    holdout: Annotated[
        float | None,
        number(
            "--holdout",
            least=0,
            below=1,
            help="Part of each fold's training cases to choose on, see `slicemamba holdout`; 0: none. Default: 0.2 "
            "with other candidates than the paper's, else none.",
        ),
    ] = None,
    npz: Annotated[bool, typer.Option("--npz", help="Also write validation probabilities, as nnUNetv2_train.")] = False,
    device: Device = "auto",
    predict: Annotated[
        bool,
        typer.Option("--predict", help="Also predict imagesTs with the folds' ensemble, and write the report."),
    ] = False,
    gpus: Gpus = None,
    per_gpu: PerGpu = 1,
    at_once: AtOnce = None,
) -> None:
    """Plan, train, search and retrain the folds of a dataset.

    Folds follow one another, or several steps are done at once. What is finished is skipped, so that the same command
    continues a run that was stopped anywhere.
    """
    from nnunetv2_slicemamba.common.folders import InputError, require_folder
    from nnunetv2_slicemamba.common.names import check_plans_name
    from nnunetv2_slicemamba.pipeline.fold_steps import (
        RunSettings,
        hold_out_all,
        hold_out_by_default,
        run_fold,
        summary_dice,
        take,
    )
    from nnunetv2_slicemamba.pipeline.graph import ending_steps_of
    from nnunetv2_slicemamba.pipeline.places import places_for
    from nnunetv2_slicemamba.planning.fold_folder import FoldFolder, SupernetFolder
    from nnunetv2_slicemamba.planning.selection import choose_device, select
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
    if size not in SIZES:
        raise InputError(f"size {size!r} does not exist; give one of {', '.join(SIZES)}")
    SearchSettings(population=population, generations=generations, seed=seed)
    chosen = choose_device(device).type
    places = places_for(chosen, gpus, per_gpu, at_once)
    require_folder("nnUNet_results", writable=True)
    planned = network_named(network, hybrid)
    plans_name = plans or plans_name_of(size, planned)
    check_plans_name(plans_name)

    prepare(dataset, configuration, size, plans_name, gpu_memory, console, planned, candidates)
    # every fold is checked before the first one trains for days
    wanted = folds or ["0", "1", "2", "3", "4"]
    selections = [select(dataset, configuration, fold, plans_name).with_blocks() for fold in wanted]
    limits = () if budget is None else ("--max-step", f"{100 * budget:g}%")
    settings = RunSettings(
        trainer,
        supernet,
        chosen,
        ("--seed", str(seed), "--population", str(population), "--generations", str(generations), *limits),
        npz,
        predict=predict,
    )
    endings = ending_steps_of(selections, settings)
    supernets = [SupernetFolder(selection, supernet) for selection in selections]
    if holdout is None:
        hold_out_by_default(supernets, console)
    elif holdout:
        hold_out_all(supernets, holdout, console)
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
    flags = ["-d", selections[0].dataset, "-i", "INPUT", "-o", "OUTPUT", "-c", configuration, "-p", plans_name]
    flags += ["-tr", trainer, "-f", *(str(selection.fold) for selection in selections)]
    console.print(
        f"Predict with the ensemble of the folds:\n  {shell_line('nnUNetv2_predict', *flags, '-device', chosen)}",
    )


def run_several(
    selections: Sequence[Selection], settings: RunSettings, places: Sequence[Place], console: Console, title: str
) -> None:
    """Takes the steps of all folds in places at once."""
    from nnunetv2_slicemamba.pipeline.at_once import only_run, run_at_once
    from nnunetv2_slicemamba.pipeline.fold_steps import draw_split
    from nnunetv2_slicemamba.pipeline.graph import graph_of, run_folder, write_run
    from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder

    folder = run_folder(selections, settings)
    with only_run(folder):
        draw_split(SupernetFolder(selections[0], settings.supernet_trainer))
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
    network: str = "paper",
    candidates: str = "paper",
) -> None:
    """Plans and preprocesses what is missing; plans that exist are used as they are."""
    from nnunetv2_slicemamba.common.commands import run_command
    from nnunetv2_slicemamba.common.folders import InputError, require_folder
    from nnunetv2_slicemamba.common.library_errors import library_errors
    from nnunetv2_slicemamba.planning.preprocessing import complete_data
    from nnunetv2_slicemamba.planning.selection import require_dataset

    try:
        name = require_dataset(dataset, "nnUNet_preprocessed")
    except InputError:
        require_folder("nnUNet_preprocessed", writable=True)
        name = require_dataset(dataset, "nnUNet_raw")
    # data that are complete may lie where nothing can be written
    if (require_folder("nnUNet_preprocessed") / name / f"{plans_name}.json").is_file():
        look = "its output above may say more, and slicemamba plan --verify_dataset_integrity checks every file"
        with library_errors("nnunetv2", f"nnU-Net cannot preprocess {name}", look):
            complete_data(name, plans_name, configuration)
        return
    flags = ["-d", dataset, "--size", size, "--gpu-memory", str(gpu_memory), "-p", plans_name]
    flags += ["--network", network, *(["--candidates", candidates] if candidates != "paper" else [])]
    run_command("slicemamba", ["plan", *flags, "-c", configuration], console)
