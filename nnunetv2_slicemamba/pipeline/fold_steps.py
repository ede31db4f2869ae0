"""Steps of a fold's pipeline, from the supernet to the validated network; finished steps are skipped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from nnunetv2_slicemamba.common.checkpoint_names import FINAL, UNFINISHED
from nnunetv2_slicemamba.common.commands import run_command
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.hashing import sha256_of_file
from nnunetv2_slicemamba.planning.selection import Selection
from nnunetv2_slicemamba.search.holdout import hold_out
from nnunetv2_slicemamba.slicing.file import read_slicing_file
from nnunetv2_slicemamba.slicing.find import SLICING_FILE, SLICING_VARIABLE, slicing_search_folder
from nnunetv2_slicemamba.slicing.trained import trained_slicing


@dataclass(frozen=True)
class PipelineSettings:
    """Settings of a run over the folds.

    trainer, supernet_trainer: class names. device: as nnU-Net's -device. search_arguments: for `slicemamba search`.
    npz: also write validation probabilities, which nnUNetv2_find_best_configuration needs for ensembles.
    quiet: show only the latest line of a training's output.
    """

    trainer: str
    supernet_trainer: str
    device: str
    search_arguments: Sequence[str] = field(default_factory=tuple)
    npz: bool = False
    quiet: bool = False


def run_fold(selection: Selection, settings: PipelineSettings, console: Console) -> float:
    """Supernet, search, final training and validation of one fold, skipping what is finished.

    Returns the fold's mean validation Dice. Raises CommandError if a step fails, InputError if a finished final
    training used another slicing than the fold's file holds now.
    """
    console.rule(f"fold {selection.fold}")
    train(selection, settings.supernet_trainer, settings, console)
    search(selection, settings, console)
    check_final_slicing(selection, settings)
    train(selection, settings.trainer, settings, console)
    return validation_dice(selection, settings.trainer)


def hold_out_all(selections: Sequence[Selection], supernet_trainer: str, fraction: float, console: Console) -> None:
    """Sets aside a part of each fold's training cases, before the first fold trains; a holdout of that part stays.

    Raises HoldoutError if a fold's supernet was trained without it.
    """
    for selection in selections:
        held_out, file, kept = hold_out(selection, supernet_trainer, fraction, seed=None)
        n = len(held_out.cases)
        console.print(
            f"holdout, fold {selection.fold}: {n} of {n + len(kept)} training cases, in {file}", highlight=False
        )


def train(selection: Selection, trainer: str, settings: PipelineSettings, console: Console) -> None:
    """Trains and validates a fold with nnU-Net's command: from the start, from a checkpoint, or not at all."""
    folder = selection.fold_folder(trainer)
    trained = (folder / FINAL).is_file()
    npz = settings.npz and "Supernet" not in trainer
    if trained and is_validated(folder, npz):
        console.print(f"{trainer}, fold {selection.fold}: finished before", highlight=False)
        return
    flags = ["-tr", trainer, "-p", selection.plans_name, "-device", settings.device]
    if npz:
        flags.append("--npz")
    if trained:
        flags.append("--val")
    elif any((folder / name).is_file() for name in UNFINISHED):
        flags.append("--c")
    work = [selection.dataset, selection.configuration, str(selection.fold)]
    variables = pipeline_variables(selection, settings)
    run_command("nnUNetv2_train", [*work, *flags], console, variables, quiet=settings.quiet)


def pipeline_variables(selection: Selection, settings: PipelineSettings) -> dict[str, str]:
    """Environment variables that tie the steps together, whatever other supernets and trainings there are."""
    from nnunetv2_slicemamba.trainers.supernet import PREVIOUS_STAGE_VARIABLE  # seconds, which not all importers need

    return {SLICING_VARIABLE: str(slicing_file(selection, settings)), PREVIOUS_STAGE_VARIABLE: settings.trainer}


def slicing_file(selection: Selection, settings: PipelineSettings) -> Path:
    """File that the search with the pipeline's supernet writes, and `slicemamba slicing --set`."""
    return slicing_search_folder(selection.fold_folder(settings.supernet_trainer)) / SLICING_FILE


def is_validated(fold_folder: Path, npz: bool) -> bool:
    """Whether nnU-Net's validation of a fold is finished, with the probabilities of every case if `npz`."""
    summary = fold_folder / "validation" / "summary.json"
    if not summary.is_file():
        return False
    return not npz or len(list(summary.parent.glob("*.npz"))) >= len(json.loads(summary.read_text())["metric_per_case"])


def search(selection: Selection, settings: PipelineSettings, console: Console) -> None:
    """Searches the fold's slicing unless a finished search of the present supernet gave one, or the slicing was set."""
    file = slicing_file(selection, settings)
    if file.is_file():
        content = read_slicing_file(file)
        set_slicing = content.choice.how_chosen != "search"
        supernet = file.parents[1] / FINAL
        if set_slicing or (content.complete and content.supernet_checkpoint_sha256 == sha256_of_file(supernet)):
            console.print(f"slicing, fold {selection.fold}: {content.choice.how_chosen}, in {file}", highlight=False)
            return
    run_command(
        "slicemamba",
        [
            "search",
            *("-d", selection.dataset, "-c", selection.configuration, "-f", str(selection.fold)),
            *("-p", selection.plans_name, "-tr", settings.supernet_trainer, "-device", settings.device),
            *settings.search_arguments,
        ],
        console,
        pipeline_variables(selection, settings),
    )


def check_final_slicing(selection: Selection, settings: PipelineSettings) -> None:
    """Refuses a finished final training whose slicing is not the one that the fold's file holds now."""
    final = selection.fold_folder(settings.trainer) / FINAL
    if not final.is_file():
        return
    file = slicing_file(selection, settings)
    if trained_slicing(final) != read_slicing_file(file).slicing:
        raise InputError(
            f"{final} was trained with another slicing than {file} holds now; move the folder {final.parent} away to "
            f"train fold {selection.fold} anew, or restore the file ('slicemamba slicing --set FILE')"
        )


def validation_dice(selection: Selection, trainer: str) -> float:
    """Mean foreground Dice of nnU-Net's own validation of a fold."""
    return summary_dice(selection.fold_folder(trainer) / "validation" / "summary.json")


def summary_dice(summary: Path) -> float:
    """`foreground_mean` Dice of a summary.json as nnU-Net writes it."""
    return float(json.loads(summary.read_text())["foreground_mean"]["Dice"])
