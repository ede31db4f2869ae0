"""Plans, preprocessed data and folds of a run, made where they are missing: by the run itself, or by a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console

from nnunetv2_slicemamba.common.commands import run_command
from nnunetv2_slicemamba.common.dataset_names import dataset_id_of
from nnunetv2_slicemamba.common.folders import InputError, named_folder, require_folder
from nnunetv2_slicemamba.common.library_errors import library_errors
from nnunetv2_slicemamba.common.names import is_number
from nnunetv2_slicemamba.common.nnunet_files import SPLITS_JSON
from nnunetv2_slicemamba.common.verbosity import is_verbose, libraries_heard
from nnunetv2_slicemamba.common.watch import Watch
from nnunetv2_slicemamba.pipeline.fold_steps import RunSettings, draw_split, hold_out_all, hold_out_by_default
from nnunetv2_slicemamba.pipeline.slicings import check_slicings, set_slicings
from nnunetv2_slicemamba.pipeline.step import PLAN, Command, Finished, Step
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder, SupernetFolder
from nnunetv2_slicemamba.planning.outside_plans import preprocessing_arguments
from nnunetv2_slicemamba.planning.selection import DRAWN_FOLDS, Selection, require_dataset, select
from nnunetv2_slicemamba.slicing import candidate_sets
from nnunetv2_slicemamba.slicing.candidates import default_candidates, listed


@dataclass(frozen=True)
class Planning:
    """How a run plans where there are no plans yet, as `slicemamba plan` takes it.

    holdout: part of each fold's training cases to choose on; 0 to choose on the validation cases, None for the usual.
    candidates: as `slicemamba plan` takes them. slicing: that all folds get, as `slicemamba slicing --set` takes it.
    """

    size: str
    network: str
    gpu_memory: float
    holdout: float | None = None
    candidates: str = candidate_sets.PAPER
    slicing: str | None = None

    def arguments(self, dataset: str, configuration: str, plans_name: str) -> list[str]:
        """Arguments of `slicemamba`."""
        flags = ["-d", dataset, "--size", self.size, "--gpu-memory", str(self.gpu_memory)]
        flags += ["-p", plans_name, "--network", self.network]
        flags += ["--candidates", self.candidates] if self.candidates != candidate_sets.PAPER else []
        return ["plan", *flags, "-c", configuration]


def dataset_name(dataset: str) -> str:
    """The name of a dataset given as ID or name: one that is preprocessed, or can be. Raises InputError otherwise."""
    try:
        return require_dataset(dataset, "nnUNet_preprocessed")
    except InputError:
        require_folder("nnUNet_preprocessed", writable=True)
        return require_dataset(dataset, "nnUNet_raw")


def prepare(
    dataset: str, configuration: str, plans_name: str, planning: Planning, console: Console, sliced: bool = True
) -> None:
    """Plans and preprocesses what is missing; plans that exist are used as they are.

    sliced: as of RunSettings. Data of a baseline are used as they are; raises InputError if they are incomplete.
    """
    # which load PyTorch
    from nnunetv2_slicemamba.planning.outside_data import require_outside_data
    from nnunetv2_slicemamba.planning.preprocessing import complete_data

    name = dataset_name(dataset)
    if not sliced:
        require_outside_data(name, plans_name, configuration)
        return
    # data that are complete may lie where nothing can be written
    if (require_folder("nnUNet_preprocessed") / name / f"{plans_name}.json").is_file():
        look = "its output above may say more, and slicemamba plan --verify_dataset_integrity checks every file"
        with library_errors("nnunetv2", f"nnU-Net cannot preprocess {name}", look), libraries_heard():
            complete_data(name, plans_name, configuration)
        return
    watch = None if is_verbose() else Watch(console)
    run_command("slicemamba", planning.arguments(dataset, configuration, plans_name), console, watch=watch)


def prepare_folds(selections: Sequence[Selection], settings: RunSettings, planning: Planning, console: Console) -> None:
    """Sets slicings and sets cases aside, as it was asked for, before the first fold trains.

    Raises InputError for a fold that cannot be trained so.
    """
    if planning.slicing is not None or settings.search:
        selections = [selection.with_blocks() for selection in selections]
    if planning.candidates != candidate_sets.PAPER:
        for selection in selections:
            require_candidates(selection, planning.candidates)
    if planning.slicing is not None:
        set_slicings(selections, planning.slicing, settings)
    check_slicings(selections, settings)
    if not settings.search:
        return
    supernets = [SupernetFolder(selection, settings.supernet_trainer) for selection in selections]
    if planning.holdout is None:
        hold_out_by_default(supernets, console)
    elif planning.holdout:
        hold_out_all(supernets, planning.holdout, console)


def require_candidates(selection: Selection, asked: str) -> None:
    """Raises InputError, naming both sets, if plans have other candidates than those that `--candidates` asks for."""
    wanted = candidate_sets.named_candidates(asked, selection.n_dims) or default_candidates(selection.n_dims)
    if wanted != selection.candidates:
        raise InputError(
            f"the plans {selection.plans_name} have the candidates {listed(selection.candidates)}, --candidates "
            f"{asked} are {listed(wanted)}: leave --candidates out, or name new plans with -p"
        )


def draw_folds(selections: Sequence[Selection], settings: RunSettings) -> None:
    """Has nnU-Net draw the dataset's folds where one is asked for by its number, unless they are there."""
    trainer = settings.supernet_trainer if settings.search else settings.trainer
    for selection in [one for one in selections if one.fold != "all"][:1]:
        draw_split(FoldFolder(selection, trainer))


def all_folds(dataset: str) -> list[str]:
    """The folds of a dataset's splits; those that nnU-Net draws where there are none yet. dataset: name."""
    splits = SPLITS_JSON.read_if_there(require_folder("nnUNet_preprocessed") / dataset / "splits_final.json")
    raw = named_folder("nnUNet_raw")
    if splits is None and raw is not None:  # from where nnU-Net's planner copies them
        splits = SPLITS_JSON.read_if_there(raw / dataset / "splits_final.json")
    return [str(fold) for fold in range(DRAWN_FOLDS if splits is None else len(splits))]


def named_selections(
    dataset: str, configuration: str, folds: Sequence[str], plans_name: str, any_network: bool = False
) -> list[Selection]:
    """Selections of plans that need not exist yet, by their names alone; checked against the plans where they exist.

    any_network: as `select` takes it. Raises InputError as `select` does, and for a fold that is neither a number nor
    "all".
    """
    name = dataset_name(dataset)
    if (require_folder("nnUNet_preprocessed") / name / f"{plans_name}.json").is_file():
        return [select(name, configuration, fold, plans_name, any_network) for fold in folds]
    for fold in folds:
        if fold != "all" and not is_number(fold):
            raise InputError(f"fold {fold!r} does not exist: give 'all' or a number, such as 0")
    numbers = [fold if fold == "all" else int(fold) for fold in folds]
    return [Selection(name, {}, plans_name, configuration, number) for number in numbers]


def is_planned(selection: Selection, sliced: bool = True) -> bool:
    """True if there are plans and preprocessed data; no case is opened. sliced: as of RunSettings."""
    from nnunetv2_slicemamba.planning.outside_data import lack_of_data
    from nnunetv2_slicemamba.planning.preprocessing import has_data

    file = require_folder("nnUNet_preprocessed") / selection.dataset / f"{selection.plans_name}.json"
    names = (selection.dataset, selection.plans_name, selection.configuration)
    return file.is_file() and (has_data(*names) if sliced else not lack_of_data(*names, damage=False))


def planning_step(selections: Sequence[Selection], planning: Planning, sliced: bool = True) -> Step:
    """The step before all folds, which makes plans, data and folds. sliced: as of RunSettings."""
    first = selections[0]

    def look() -> Command | Finished:
        splits = require_folder("nnUNet_preprocessed") / first.dataset / "splits_final.json"
        has_folds = splits.is_file() or all(selection.fold == "all" for selection in selections)
        if has_folds and is_planned(first, sliced):
            return Finished(first.plans_name)
        if not sliced:  # plans of ours would take the place of the baseline's
            number = dataset_id_of(first.dataset)
            arguments = preprocessing_arguments(number, first.plans_name, first.configuration)
            return Command("nnUNetv2_preprocess", arguments)
        return Command("slicemamba", tuple(planning.arguments(first.dataset, first.configuration, first.plans_name)))

    return Step(PLAN, "", PLAN, (), look)


def after_planning(planning: Step, steps: Sequence[Step]) -> list[Step]:
    """A run's steps with its planning in front, which those without another one follow."""
    return [planning, *(replace(step, after=step.after or (planning.name,)) for step in steps)]
