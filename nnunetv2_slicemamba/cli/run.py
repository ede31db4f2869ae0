"""`slicemamba run`: the whole chain for one or more folds."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
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
from nnunetv2_slicemamba.planning.sizes import PAPER, SIZES, plans_name_of

if TYPE_CHECKING:
    from nnunetv2_slicemamba.pipeline.fold_steps import RunSettings
    from nnunetv2_slicemamba.pipeline.places import Place
    from nnunetv2_slicemamba.pipeline.preparing import Planning
    from nnunetv2_slicemamba.pipeline.slurm.options import SlurmOptions
    from nnunetv2_slicemamba.planning.selection import Selection


def add_commands(app: typer.Typer) -> None:
    app.command("run")(run)


def run(
    dataset: Dataset,
    configuration: Configuration,
    folds: Annotated[list[str] | None, typer.Option("-f", help="Folds, e.g. -f 0 1; default: 0 1 2 3 4.")] = None,
    size: Annotated[
        str, typer.Option("--size", help=f"Size to plan, if there are no plans yet: {', '.join(SIZES)}.")
    ] = PAPER,
    plans: Annotated[str | None, typer.Option("-p", help="Plans' name; default: those of --size.")] = None,
    network: Annotated[
        str | None, typer.Option("--network", help="Network to plan, if there are no plans yet; see `slicemamba plan`.")
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
    launcher: Annotated[
        str, typer.Option("--launcher", help="local: this machine; slurm: submit the steps as jobs of a cluster.")
    ] = "local",
    partition: Annotated[
        str | None, typer.Option("--partition", help="With slurm: partition; default: the cluster's.")
    ] = None,
    time: Annotated[
        str | None, typer.Option("--time", help="With slurm: limit of time of a job, which goes on in another one.")
    ] = None,
    account: Annotated[str | None, typer.Option("--account", help="With slurm: account.")] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option("--sbatch", help="With slurm: any other option of sbatch, e.g. mem=64G; may be repeated."),
    ] = None,
) -> None:
    """Plan, preprocess, train the supernets, search, train the chosen networks: in a row, at once or on a cluster.

    What is finished is skipped, so that the same command continues a run that was stopped anywhere.
    """
    from nnunetv2_slicemamba.common.folders import InputError, require_folder
    from nnunetv2_slicemamba.common.names import check_plans_name
    from nnunetv2_slicemamba.pipeline.fold_steps import RunSettings, hold_out_all, run_fold, summary_dice, take
    from nnunetv2_slicemamba.pipeline.graph import ending_steps_of, steps_folder
    from nnunetv2_slicemamba.pipeline.places import places_for
    from nnunetv2_slicemamba.pipeline.preparing import Planning, dataset_name, named_selections, prepare
    from nnunetv2_slicemamba.pipeline.slurm.options import slurm_options
    from nnunetv2_slicemamba.pipeline.slurm.submission import refuse_live_jobs
    from nnunetv2_slicemamba.planning.fold_folder import FoldFolder, SupernetFolder
    from nnunetv2_slicemamba.planning.selection import choose_device
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
    slurm = slurm_options(launcher, partition, time, account, sbatch or ())
    if slurm is not None and (gpus, per_gpu, at_once) != (None, 1, None):
        raise InputError(
            "--gpus, --per-gpu and --at-once are for this machine; with --launcher slurm SLURM finds places for the "
            "steps: leave them out"
        )
    chosen = choose_device(device).type if slurm is None else device_of_nodes(device)
    places = places_for(chosen, gpus, per_gpu, at_once)
    require_folder("nnUNet_results", writable=True)
    planned = network_named(network, hybrid)
    plans_name = plans or plans_name_of(size, planned)
    check_plans_name(plans_name)

    refuse_live_jobs(steps_folder(dataset_name(dataset)))
    planning = Planning(size, planned, gpu_memory, holdout)
    wanted = folds or ["0", "1", "2", "3", "4"]
    if slurm is None:
        prepare(dataset, configuration, plans_name, planning, console)
    # every fold is checked before the first one trains for days
    selections = named_selections(dataset, configuration, wanted, plans_name)
    settings = RunSettings(
        trainer,
        supernet,
        chosen,
        ("--seed", str(seed), "--population", str(population), "--generations", str(generations)),
        npz,
        predict=predict,
    )
    if slurm is not None:
        submit(selections, settings, planning, slurm, console)
        return
    endings = ending_steps_of(selections, settings)
    if holdout is not None:
        hold_out_all([SupernetFolder(selection, supernet) for selection in selections], holdout, console)
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


def submit(
    selections: Sequence[Selection], settings: RunSettings, planning: Planning, options: SlurmOptions, console: Console
) -> None:
    """Submits the steps of all folds to SLURM, and says what was submitted."""
    from nnunetv2_slicemamba.pipeline.at_once import only_run
    from nnunetv2_slicemamba.pipeline.graph import read_run, run_folder, write_run
    from nnunetv2_slicemamba.pipeline.preparing import is_planned, prepare, prepare_folds
    from nnunetv2_slicemamba.pipeline.slurm.options import refuse_unshared_folders
    from nnunetv2_slicemamba.pipeline.slurm.submission import submit_run
    from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder

    refuse_unshared_folders()
    first, folder = selections[0], run_folder(selections, settings)
    with only_run(folder):
        if is_planned(first):  # then this takes no time
            prepare(first.dataset, first.configuration, first.plans_name, planning, console)
            supernets = [SupernetFolder(selection, settings.supernet_trainer) for selection in selections]
            prepare_folds(supernets, planning.holdout, console)
        said = {"command": shell_line("slicemamba", *sys.argv[1:]), "process": os.getpid(), "host": host()}
        write_run(folder, selections, settings, **said, started=now(), planning=asdict(planning), jobs={})
        steps, _ = read_run(folder)
        submitted = submit_run(steps, folder, options, settings.device)
    if not submitted:
        console.print("All steps are finished: nothing was submitted.")
        return
    table = Table("step", "job", "after")
    for one in submitted:
        table.add_row(one.step.title, one.job, one.dependency or "")
    console.print(table)
    for command, what in (("status", "See them"), ("cancel", "End them")):
        console.print(f"{what}: {shell_line('slicemamba', command, '-d', first.dataset)}")


def device_of_nodes(name: str) -> str:
    """The device of the nodes' trainings: "auto" is CUDA, which only they can see. InputError for others."""
    from nnunetv2_slicemamba.common.folders import InputError

    if name not in ("auto", "cuda", "cpu"):
        raise InputError(f"device {name!r} is none of a cluster's nodes; give cuda or cpu")
    return "cuda" if name == "auto" else name
