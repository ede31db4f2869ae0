"""Steps of a fold, from its supernet to the validated network; finished steps are skipped."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from nnunetv2_slicemamba.common.commands import run_command
from nnunetv2_slicemamba.common.folder_lock import require_unused
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.hashing import sha256_of_file
from nnunetv2_slicemamba.common.nnunet_files import SUMMARY_JSON
from nnunetv2_slicemamba.common.watch import Watch
from nnunetv2_slicemamba.pipeline.step import TRAINING, Command, Finished, Step, made_whole
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder, SupernetFolder, finals_root
from nnunetv2_slicemamba.planning.selection import Selection
from nnunetv2_slicemamba.planning.trained import require_same_network
from nnunetv2_slicemamba.search.holdout import hold_out
from nnunetv2_slicemamba.slicing.candidates import default_candidates
from nnunetv2_slicemamba.slicing.choice import FINALISTS, SlicingChoice
from nnunetv2_slicemamba.slicing.file import read_slicing_file
from nnunetv2_slicemamba.slicing.find import (
    SLICING_VARIABLE,
    NothingChosenError,
    SeveralSlicingsError,
    SlicingNotFoundError,
    searched_slicing_file,
    supernet_folders,
)
from nnunetv2_slicemamba.slicing.fixed import fixed_text
from nnunetv2_slicemamba.slicing.trained import trained_slicing
from nnunetv2_slicemamba.trainers.roles import SUPERNET, trainers_with
from nnunetv2_slicemamba.trainers.settings import PREVIOUS_STAGE_VARIABLE, tenth_of

DEFAULT_HOLDOUT = 0.2
CHECKPOINTS = "checkpoint_*.pth"


@dataclass(frozen=True)
class RunSettings:
    """Settings that all folds of a run share.

    trainer, supernet_trainer: class names. device: as nnU-Net's -device. search_arguments: for `slicemamba search`,
    pairs of an option and its value.
    npz: also write validation probabilities, which nnUNetv2_find_best_configuration needs for ensembles.
    predict: predict imagesTs with all folds at the end, and write the report. search: train a supernet and search the
    slicing first; False: train with the slicing that was chosen before, or the fixed one. sliced: whether the trainer
    takes a slicing; False: one of nnU-Net or of another project, with plans of any network. finalists: number of the
    search's best slicings that are trained for a tenth, None for no finals.
    """

    trainer: str
    supernet_trainer: str
    device: str
    search_arguments: Sequence[str] = field(default_factory=tuple)
    npz: bool = False
    predict: bool = False
    search: bool = True
    sliced: bool = True
    finalists: int | None = None


def steps_of_fold(selection: Selection, settings: RunSettings) -> list[Step]:
    """The steps of one fold, in order: supernet and search if they are asked for, training with validation."""
    supernet = SupernetFolder(selection, settings.supernet_trainer)
    final = FoldFolder(selection, settings.trainer)
    fold = str(selection.fold)

    def look_at_training() -> Command | Finished:
        check_final_slicing(final, chosen_file(supernet, settings))
        return training_needed(final, supernet, settings)

    looks: dict[str, tuple[Callable[[], Command | Finished], Path | None]] = {}
    if settings.search:
        looks["supernet"] = (lambda: training_needed(supernet, supernet, settings), supernet.path)
        looks["search"] = (lambda: search_needed(supernet, settings), None)
    looks[TRAINING] = (look_at_training, final.path)
    steps: list[Step] = []
    for kind, (look, training) in looks.items():
        after = tuple(step.name for step in steps[-1:])
        keeps = kept_of_search(supernet, settings) if training is None else ((training, CHECKPOINTS),)
        steps.append(Step(f"fold_{fold}_{kind}", fold, kind, after, look, training, keeps))
    return steps


def kept_of_search(supernet: SupernetFolder, settings: RunSettings) -> tuple[tuple[Path, str], ...]:
    """Folders and patterns of the files from which a search goes on, and its finals, if they are asked for."""
    evaluations = (supernet.search, "study.evaluations/*")
    if settings.finalists is None:
        return (evaluations,)
    finals = finals_root(supernet.selection, tenth_of(settings.trainer))
    return evaluations, (finals, f"fold_{supernet.selection.fold}_*/*/repeat_*/**/{CHECKPOINTS}")


def take(needed: Command, console: Console, watch: Watch | None = None) -> None:
    """Runs the command that a step needs. watch: as of run_command."""
    with made_whole(needed):
        run_command(needed.name, needed.arguments, console, needed.variables, watch=watch)


def hold_out_all(supernets: Sequence[SupernetFolder], fraction: float, console: Console) -> None:
    """Sets aside a part of each fold's training cases, before the first fold trains; a holdout of that part stays.

    Raises HoldoutError if a fold's supernet was trained without it.
    """
    for supernet in supernets:
        held_out, file, kept = hold_out(supernet, fraction, seed=None)
        n = len(held_out.cases)
        console.print(
            f"holdout, fold {supernet.selection.fold}: {n} of {n + len(kept)} training cases, in {file}",
            highlight=False,
        )


def hold_out_by_default(supernets: Sequence[SupernetFolder], console: Console) -> None:
    """Sets cases aside for the searches of supernets with other candidates than the paper's, where training may begin.

    The more the choices matter, the luckier the best is on the cases that it is chosen on.
    """
    for supernet in supernets:
        selection = supernet.selection
        is_new = not (supernet.is_trained or supernet.is_in_training)
        if is_new and selection.candidates != default_candidates(selection.n_dims):
            hold_out_all([supernet], DEFAULT_HOLDOUT, console)


def draw_split(folder: FoldFolder) -> None:
    """Has nnU-Net draw the dataset's folds, unless they are there.

    Trainings that begin at the same time would each draw them, and write them to one file.
    """
    if not (folder.selection.preprocessed_folder / "splits_final.json").is_file():
        import torch

        from nnunetv2_slicemamba.trainers.offline import make_trainer, quiet

        with quiet():
            make_trainer(folder, torch.device("cpu")).do_split()


def training_needed(folder: FoldFolder, supernet: SupernetFolder, settings: RunSettings) -> Command | Finished:
    """The command of nnU-Net that trains and validates a fold: from the start, from a checkpoint, or not at all.

    supernet: of the fold, whose slicing file a final trainer takes. Raises FolderInUseError while another process
    trains it, and InputError where the plans hold another network than its folds have.
    """
    selection = folder.selection
    require_unused(folder.path)
    npz = settings.npz and folder.trainer not in trainers_with(SUPERNET)
    if folder.is_trained and is_validated(folder, npz):
        return Finished()
    require_same_network(folder)
    flags = ["-tr", folder.trainer, "-p", selection.plans_name, "-device", settings.device]
    if npz:
        flags.append("--npz")
    if folder.is_trained:
        flags.append("--val")
    elif folder.is_in_training:
        flags.append("--c")
    work = (selection.dataset, selection.configuration, str(selection.fold))
    return Command("nnUNetv2_train", (*work, *flags), run_variables(supernet, settings))


def run_variables(supernet: SupernetFolder, settings: RunSettings) -> dict[str, str]:
    """Environment variables that tie the steps together, whatever other supernets and trainings there are."""
    file = chosen_file(supernet, settings)
    return {SLICING_VARIABLE: "" if file is None else str(file), PREVIOUS_STAGE_VARIABLE: settings.trainer}


def chosen_file(supernet: SupernetFolder, settings: RunSettings) -> Path | None:
    """The slicing file of a fold's final training; None for the fixed slicing, and where a training needs no file.

    A search's is the file that it writes into the supernet's folder. Without a search: the one that was set by hand,
    the supernet's, or that of the only supernet that has one. Raises InputError if there are several, and if a search
    is on its way.
    """
    if not settings.sliced:
        return None
    selection, final = supernet.selection, FoldFolder(supernet.selection, settings.trainer)
    if settings.search:
        return supernet.slicing_file
    for file in (selection.set_slicing_file, supernet.slicing_file):
        if file.is_file():
            return file
    place = (selection.results_folder, selection.plans_name, selection.configuration)
    try:
        return searched_slicing_file(*place, selection.fold)
    except NothingChosenError:
        return None
    except SlicingNotFoundError as error:
        if final.is_trained or final.is_in_training:  # which has its slicing
            return None
        supernets = " and ".join(map(str, supernet_folders(*place)))
        fixed = fixed_text(selection.n_dims) if selection.plans else "VALUE"
        raise InputError(
            f"fold {selection.fold} has no slicing yet, and a search seems to be on its way in {supernets}: go on with "
            f"it (--search), or name a slicing (--slicing {fixed})"
        ) from error
    except SeveralSlicingsError as error:
        listed = "".join(f"\n  {file}" for file in error.files)
        raise InputError(
            f"several searches have a slicing for fold {selection.fold}; name one with --slicing FILE:{listed}"
        ) from error


def is_validated(folder: FoldFolder, npz: bool) -> bool:
    """True if nnU-Net's validation of a fold is finished, with the probabilities of every case if `npz`."""
    if not SUMMARY_JSON.is_readable(folder.summary):  # nor is one that a full disk or a kill left half of
        return False
    cases = SUMMARY_JSON.read(folder.summary)["metric_per_case"]
    return not npz or len(list(folder.summary.parent.glob("*.npz"))) >= len(cases)


def search_needed(supernet: SupernetFolder, settings: RunSettings) -> Command | Finished:
    """The command that searches a fold's slicing, unless a finished search of the present supernet gave one, or it was
    set."""
    file = supernet.slicing_file
    if file.is_file():
        content = read_slicing_file(file)
        was_set = content.choice.how_chosen != "search"
        complete = content.complete and has_finals(content.choice, settings)
        if was_set or (complete and content.supernet_checkpoint_sha256 == sha256_of_file(supernet.checkpoint)):
            return Finished(f"slicing ({content.choice.how_chosen}) in {file}")
    return Command("slicemamba", search_arguments(supernet, settings), run_variables(supernet, settings))


def search_arguments(supernet: SupernetFolder, settings: RunSettings) -> tuple[str, ...]:
    """Arguments of `slicemamba` that search a fold's slicing."""
    selection = supernet.selection
    return (
        "search",
        *("-d", selection.dataset, "-c", selection.configuration, "-f", str(selection.fold)),
        *("-p", selection.plans_name, "-tr", supernet.trainer, "-device", settings.device),
        *settings.search_arguments,
        *finals_flags(settings),
    )


def has_finals(choice: SlicingChoice, settings: RunSettings) -> bool:
    """True if a search's slicing was chosen in the finals that are asked for, or none are."""
    if settings.finalists is None:
        return True
    told = choice.details.get(FINALISTS)
    asked = (settings.finalists, tenth_of(settings.trainer))
    return isinstance(told, dict) and (told.get("asked"), told.get("trainer")) == asked


def finals_flags(settings: RunSettings) -> tuple[str, ...]:
    """Arguments of `slicemamba search` that have finals follow."""
    if settings.finalists is None:
        return ()
    return "--finalists", str(settings.finalists), "--final-trainer", settings.trainer


def check_final_slicing(final: FoldFolder, file: Path | None) -> None:
    """Refuses a finished final training whose slicing is not the one that the fold's file, if any, holds now."""
    if file is None or not final.is_trained:
        return
    if trained_slicing(final.checkpoint) != read_slicing_file(file).slicing:
        raise InputError(
            f"{final.checkpoint} was trained with another slicing than {file} holds now; move the folder {final.path} "
            f"away to train fold {final.selection.fold} anew, or restore the file ('slicemamba slicing --set FILE')"
        )


def summary_dice(summary: Path) -> float:
    """`foreground_mean` Dice of a summary.json as nnU-Net writes it."""
    dice = SUMMARY_JSON.read(summary)["foreground_mean"]["Dice"]
    return math.nan if dice is None else float(dice)
