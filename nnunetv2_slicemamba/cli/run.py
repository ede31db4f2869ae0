"""`slicemamba run`: from raw data to validated networks, for one or more folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.help import TRAIN, listed
from nnunetv2_slicemamba.cli.options import (
    Configuration,
    Dataset,
    Device,
    candidates_option,
    choice,
    finalists_option,
    flag,
    fold_option,
    generations_option,
    gpu_memory_option,
    number,
    plans_option,
    population_option,
    seed_option,
    share_option,
    text,
    trainer_option,
)
from nnunetv2_slicemamba.cli.place_options import AtOnce, Gpus, PerGpu
from nnunetv2_slicemamba.cli.plan import network_named
from nnunetv2_slicemamba.cli.slurm_options import Account, Launcher, Partition, Sbatch, SearchNodes, Time
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.names import DEFAULT_TRAINER
from nnunetv2_slicemamba.common.verbosity import progress_console, spinner
from nnunetv2_slicemamba.planning.sizes import GPU_MEMORY, NETWORKS, PAPER, RECOMMENDED, SIZES

EXAMPLES = (
    "slicemamba run -d 501 -c 2d --predict",
    "slicemamba run -d 501 -c 3d_fullres -f 0 1 -tr SliceMambaTrainer_100epochs --search",
)
# options of the search: whoever gives one asks for it
SEARCH_OPTIONS = (
    "--supernet-trainer",
    "--seed",
    "--population",
    "--generations",
    "--budget",
    "--finalists",
    "--holdout",
)
# options of networks with slicings, and of their plans
OWN_OPTIONS = (
    *("--slicing", "--search", *SEARCH_OPTIONS),
    *("--size", "--network", "--hybrid", "--candidates", "--gpu-memory"),
)


def add_commands(app: typer.Typer) -> None:
    app.command("run", **listed(TRAIN, EXAMPLES))(run)


def run(
    context: typer.Context,
    dataset: Dataset,
    configuration: Configuration,
    folds: Annotated[list[str] | None, fold_option("Folds, e.g. -f 0 1. Default: all, mostly 0 to 4.")] = None,
    slicing: Annotated[
        str | None,
        text(
            "--slicing",
            metavar="SLICING",
            help="Slicing of all folds, as `slicemamba slicing` sets it: 2x4, random:3.",
        ),
    ] = None,
    search: Annotated[
        bool, flag("--search", help="Train a supernet and search the slicing of each fold first.")
    ] = False,
    size: Annotated[
        str | None,
        choice("--size", names=tuple(SIZES), help=f"Size to plan if there are no plans. Default: {PAPER}."),
    ] = None,
    plans: Annotated[
        str | None, plans_option("Name of the plans. Default: those of --size and --network, or the only ones.")
    ] = None,
    network: Annotated[
        str | None,
        choice("--network", names=NETWORKS, help=f"Network to plan if there are no plans. Default: {RECOMMENDED}."),
    ] = None,
    hybrid: Annotated[bool, flag("--hybrid", help="The same as --network hybrid.")] = False,
    candidates: Annotated[
        str, candidates_option("Candidates to plan, if there are no plans yet; see `slicemamba plan`.")
    ] = "paper",
    gpu_memory: Annotated[
        float | None, gpu_memory_option(f"GPU memory to plan for if there are no plans. Default: {GPU_MEMORY:g}.")
    ] = None,
    trainer: Annotated[str, trainer_option("Trainer; for a baseline, one of nnU-Net's.")] = DEFAULT_TRAINER,
    supernet_trainer: Annotated[
        str | None,
        text(
            "--supernet-trainer", metavar="TRAINER", help="Trainer of the supernet. Default: as long as the final one."
        ),
    ] = None,
    seed: Annotated[int, seed_option("Seed of the searches.")] = 0,
    population: Annotated[int, population_option()] = 50,
    generations: Annotated[int, generations_option()] = 20,
    budget: Annotated[
        float | None,
        share_option("--budget", "Longest training step, as a share of the step with the fixed slicing, e.g. 80%."),
    ] = None,
    finalists: Annotated[int | None, finalists_option()] = None,
    holdout: Annotated[
        float | None,
        number(
            "--holdout",
            least=0,
            below=1,
            help="Part of each fold's training cases that the search chooses on; 0: none. Default: 0.2 "
            "with other candidates than the paper's, else none.",
        ),
    ] = None,
    npz: Annotated[bool, flag("--npz", help="Also write validation probabilities, as nnUNetv2_train.")] = False,
    device: Device = "auto",
    predict: Annotated[
        bool, flag("--predict", help="Also predict imagesTs with the folds' ensemble, and write the report.")
    ] = False,
    gpus: Gpus = None,
    per_gpu: PerGpu = 1,
    at_once: AtOnce = None,
    launcher: Launcher = "local",
    partition: Partition = None,
    time: Time = None,
    account: Account = None,
    sbatch: Sbatch = None,
    search_nodes: SearchNodes = None,
) -> None:
    """Plan, preprocess, train and validate the folds of a dataset.

    Folds are trained one after another, or several at once with --gpus, --at-once or --launcher slurm. What is finished
    is skipped, so the same command continues a run that was stopped anywhere. An option of the search, such as
    --population, turns the search on. With -tr, a trainer of nnU-Net or of another project trains with its own plans,
    nnUNetPlans by default.
    """
    from nnunetv2_slicemamba.common.folders import InputError, require_folder
    from nnunetv2_slicemamba.common.names import check_plans_name
    from nnunetv2_slicemamba.pipeline.chosen_trainers import chosen_trainers
    from nnunetv2_slicemamba.pipeline.fold_steps import RunSettings
    from nnunetv2_slicemamba.pipeline.graph import steps_folder
    from nnunetv2_slicemamba.pipeline.places import places_for
    from nnunetv2_slicemamba.pipeline.preparing import Planning, all_folds, dataset_name, named_selections
    from nnunetv2_slicemamba.pipeline.running import run_here, submit
    from nnunetv2_slicemamba.pipeline.slurm.options import slurm_options
    from nnunetv2_slicemamba.pipeline.slurm.submission import refuse_live_jobs
    from nnunetv2_slicemamba.planning.outside_plans import STOCK_PLANS, require_plans
    from nnunetv2_slicemamba.planning.present_plans import (
        plans_to_use,
        require_planned_as_asked,
        size_and_network,
        told_of_other_size,
    )
    from nnunetv2_slicemamba.planning.selection import choose_device
    from nnunetv2_slicemamba.search import SearchSettings
    from nnunetv2_slicemamba.trainers.roles import require_final_trainer

    console = PlainConsole()
    with spinner("loading PyTorch and nnU-Net"):  # which takes some seconds
        trainers = chosen_trainers(trainer, supernet_trainer)
    if not trainers.sliced and (own := given(context, OWN_OPTIONS)):
        raise InputError(
            f"{own[0]} is for networks with slicings, and {trainer} is not one of their trainers: leave it out"
        )
    if finalists is not None:
        require_final_trainer(trainer)
    if size is not None and size not in SIZES:
        raise InputError(f"size {size!r} does not exist; give one of {', '.join(SIZES)}")
    asked = given(context, ("--search", *SEARCH_OPTIONS)) + (["-tr"] if trainers.inherits else [])
    if slicing is not None and asked:
        raise InputError(f"--slicing names a slicing, {asked[0]} asks for a search: give one of the two")
    if search_nodes is not None and not asked:
        raise InputError(f"--search-nodes {search_nodes} is for searches, and this run has none: give --search, too")
    SearchSettings(population=population, generations=generations, seed=seed)
    slurm = slurm_options(launcher, partition, time, account, sbatch or (), search_nodes)
    if slurm is not None and (gpus, per_gpu, at_once) != (None, 1, None):
        raise InputError(
            "--gpus, --per-gpu and --at-once are for this machine; with --launcher slurm SLURM finds places for the "
            "steps: leave them out"
        )
    chosen = choose_device(device).type if slurm is None else device_of_nodes(device)
    places = places_for(chosen, gpus, per_gpu, at_once)
    require_folder("nnUNet_results", writable=True)
    planned = network_named(network, hybrid)
    named = dataset_name(dataset)
    if trainers.sliced:
        plans_name = plans or plans_to_use(require_folder("nnUNet_preprocessed") / named, size, planned)
    else:
        plans_name = plans or STOCK_PLANS
    check_plans_name(plans_name)
    if not trainers.sliced:
        require_plans(named, plans_name, configuration)
    refuse_live_jobs(steps_folder(named))
    present = require_folder("nnUNet_preprocessed") / named / f"{plans_name}.json"
    if said := require_planned_as_asked(present, size, planned, gpu_memory):
        console.print(said)
    if trainers.sliced and plans is None and size is None and (said := told_of_other_size(present)):
        progress_console().print(said)
    size, planned = size_and_network(plans_name, size, planned)
    planning = Planning(size, planned, gpu_memory or GPU_MEMORY, holdout, candidates, slicing)
    sizes = {"--seed": seed, "--population": population, "--generations": generations}
    arguments = [word for flag in given(context, list(sizes)) for word in (flag, str(sizes[flag]))]
    arguments += [] if budget is None else ["--max-step", f"{100 * budget:g}%"]
    settings = RunSettings(
        trainers.final,
        trainers.supernet,
        chosen,
        tuple(arguments),
        npz,
        predict=predict,
        search=bool(asked),
        sliced=trainers.sliced,
        finalists=finalists,
    )
    # every fold is checked before the first one trains for days
    selections = named_selections(
        named, configuration, folds or all_folds(named), plans_name, any_network=not trainers.sliced
    )
    if slurm is None:
        run_here(selections, settings, planning, places, console)
    else:
        submit(selections, settings, planning, slurm, console)


def given(context: typer.Context, options: Sequence[str]) -> list[str]:
    """Those of the options that were given."""
    sources = {one.opts[0]: context.get_parameter_source(one.name or "") for one in context.command.params}
    return [flag for flag in options if getattr(sources[flag], "name", "") == "COMMANDLINE"]


def device_of_nodes(name: str) -> str:
    """The device of the nodes' trainings: "auto" is CUDA, which only they can see. InputError for others."""
    from nnunetv2_slicemamba.common.folders import InputError

    if name not in ("auto", "cuda", "cpu"):
        raise InputError(f"device {name!r} is none of a cluster's nodes; give cuda or cpu")
    return "cuda" if name == "auto" else name
