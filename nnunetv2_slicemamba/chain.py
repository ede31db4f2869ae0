"""The whole chain for a configuration's folds: what is finished, what is next, and running it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console

from nnunetv2_slicemamba.commands import run_command
from nnunetv2_slicemamba.folders import InputError
from nnunetv2_slicemamba.search.find import SLICING_FILE, slicing_search_folder
from nnunetv2_slicemamba.search.hashing import sha256_of_file
from nnunetv2_slicemamba.search.holdout import hold_out
from nnunetv2_slicemamba.search.slicing_file import read_slicing_file
from nnunetv2_slicemamba.selection import Selection

FINAL = "checkpoint_final.pth"
UNFINISHED = ("checkpoint_latest.pth", "checkpoint_best.pth")


@dataclass(frozen=True)
class ChainSettings:
    """trainer, supernet_trainer: class names. device: as nnU-Net's -device. search_arguments: for `slicemamba search`.
    npz: also write validation probabilities, which nnUNetv2_find_best_configuration needs for ensembles.
    quiet: show only the latest line of a training's output."""

    trainer: str
    supernet_trainer: str
    device: str
    search_arguments: Sequence[str] = field(default_factory=tuple)
    npz: bool = False
    quiet: bool = False


def run_fold(selection: Selection, settings: ChainSettings, console: Console) -> float:
    """Supernet, search, final training and validation of one fold, skipping what is finished.

    Returns the fold's mean validation Dice. Raises CommandError if a stage fails, InputError if a finished final
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


def train(selection: Selection, trainer: str, settings: ChainSettings, console: Console) -> None:
    """Trains and validates a fold with nnU-Net's command: from the start, from a checkpoint, or not at all."""
    folder = selection.fold_folder(trainer)
    trained = (folder / FINAL).is_file()
    if trained and (folder / "validation" / "summary.json").is_file():
        console.print(f"{trainer}, fold {selection.fold}: finished before", highlight=False)
        return
    flags = ["-tr", trainer, "-p", selection.plans_name, "-device", settings.device]
    if settings.npz and "Supernet" not in trainer:
        flags.append("--npz")
    if trained:
        flags.append("--val")
    elif any((folder / name).is_file() for name in UNFINISHED):
        flags.append("--c")
    work = [selection.dataset, selection.configuration, str(selection.fold)]
    run_command("nnUNetv2_train", [*work, *flags], console, quiet=settings.quiet)


def search(selection: Selection, settings: ChainSettings, console: Console) -> None:
    """Searches the fold's slicing unless a finished search of the present supernet gave one, or it was set by hand."""
    fold = selection.fold_folder(settings.supernet_trainer)
    file = slicing_search_folder(fold) / SLICING_FILE
    if file.is_file():
        content = read_slicing_file(file)
        by_hand = content.choice.how_chosen != "search"
        if by_hand or (content.complete and content.supernet_checkpoint_sha256 == sha256_of_file(fold / FINAL)):
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
    )


def check_final_slicing(selection: Selection, settings: ChainSettings) -> None:
    """Refuses a finished final training whose slicing is not the one that the fold's file holds now."""
    final = selection.fold_folder(settings.trainer) / FINAL
    if not final.is_file():
        return
    file = slicing_search_folder(selection.fold_folder(settings.supernet_trainer)) / SLICING_FILE
    wanted = [list(thickness) for thickness in read_slicing_file(file).slicing]
    used = torch.load(final, map_location="cpu", weights_only=False)["network_weights"]["slicing"].tolist()
    if used != wanted:
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
