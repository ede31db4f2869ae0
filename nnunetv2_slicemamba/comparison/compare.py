"""Run of a comparison: its missing trainings one after another, and what the arms have reached."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from nnunetv2_slicemamba.common.commands import run_command
from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.common.durations import duration_text
from nnunetv2_slicemamba.common.folder_lock import require_unused
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.comparison.arms import Arm, resolve_arms, same_slicings
from nnunetv2_slicemamba.comparison.at_once import train_at_once
from nnunetv2_slicemamba.comparison.folder import RESULTS_FILE, ComparisonFolder
from nnunetv2_slicemamba.comparison.results import ComparisonResult, collect
from nnunetv2_slicemamba.comparison.tables import show_trainings
from nnunetv2_slicemamba.comparison.trainings import FINISHED, ArmTraining, listed_states, state_of, trainings_of
from nnunetv2_slicemamba.pipeline.in_a_row import StepsInARow
from nnunetv2_slicemamba.pipeline.places import Place
from nnunetv2_slicemamba.pipeline.training_watch import TrainingWatch
from nnunetv2_slicemamba.slicing.candidates import Slicing
from nnunetv2_slicemamba.slicing.file import SlicingFile


@dataclass(frozen=True)
class CompareSettings:
    """Settings of a comparison.

    arms: of parse_arms. repeats: trainings per arm. device: as nnU-Net's -device. supernet_trainer: whose search is
    meant, None for the only one. verbose: show all of nnU-Net's output, not only its latest line.
    """

    arms: tuple[Arm, ...]
    repeats: int
    device: str
    supernet_trainer: str | None = None
    verbose: bool = False


def compare(
    folder: ComparisonFolder,
    settings: CompareSettings,
    console: Console,
    dry_run: bool = False,
    places: Sequence[Place] = (),
) -> ComparisonResult | None:
    """Trains and validates every arm that is not finished; ROOT/comparison.json is renewed after every training.

    dry_run: only list the trainings; None is returned. places: of trainings at once, after which comparison.json is
    renewed; none for one after another. Everything is checked before the first training starts. Raises InputError (or
    another ValueError) naming what does not fit, CommandError if a training fails.
    """
    if settings.repeats < 1:
        raise InputError(f"--repeats is {settings.repeats}, it must be at least 1")
    folder.require_first_stage()
    contents = resolve_arms(settings.arms, folder.selection, settings.supernet_trainer)
    return train_arms(folder, contents, settings, console, dry_run, places)


def train_arms(
    folder: ComparisonFolder,
    contents: Mapping[str, SlicingFile],
    settings: CompareSettings,
    console: Console,
    dry_run: bool = False,
    places: Sequence[Place] = (),
) -> ComparisonResult | None:
    """As `compare`, with the arms' slicings, by their names, at hand."""
    folder.check(contents)
    slicings = {arm: content.slicing for arm, content in contents.items()}
    trainings = trainings_of(folder, slicings, settings.repeats)
    for one, other in same_slicings(contents):
        console.print(f"Note: {one!r} and {other!r} have the same slicing; they differ by noise.", highlight=False)
    console.print(f"{count(len(trainings), 'training')} in {folder.root}: {listed_states(trainings)}.", soft_wrap=True)
    if dry_run:
        show_trainings(trainings, settings.device, console)
        return None
    folder.write(list(settings.arms), contents)
    if not places:
        _run_all(trainings, slicings, settings, console)
        return write_result(folder)
    try:
        train_at_once(folder, trainings, slicings, settings.device, places, console)
    finally:
        result = write_result(folder)
    return result


def write_result(folder: ComparisonFolder, names: Sequence[str] | None = None) -> ComparisonResult:
    """Collects the finished trainings and writes comparison.json, which always has all arms; returns those named."""
    whole = collect(folder)
    write_json(folder.root / RESULTS_FILE, {**folder.settings, **whole.as_dict()})
    return whole if names is None else collect(folder, names)


def _run_all(
    trainings: Sequence[ArmTraining], slicings: dict[str, Slicing], settings: CompareSettings, console: Console
) -> None:
    steps = StepsInARow(len(trainings), console)
    left = [training for training in trainings if training.state != FINISHED]
    steps.number = len(trainings) - len(left)
    whole: list[float] = []
    for number, training in enumerate(left):
        remaining = ""
        if whole:
            seconds = sum(whole) / len(whole) * (len(left) - number)
            remaining = f", about {duration_text(seconds)} left"
        steps.begin(f"{training.name}, {training.state}{remaining}")
        started = time.monotonic()
        _run(training, slicings[training.arm], settings, console)
        write_result(training.folder)
        whole.append(time.monotonic() - started)


def _run(training: ArmTraining, slicing: Slicing, settings: CompareSettings, console: Console) -> None:
    """Runs one training; the lock keeps a second command with the same arm from writing to the same files."""
    fold_folder = training.folder.fold_folder(training.arm, training.repeat)
    lock = FileLock(training.lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another process trains {training.name} in {fold_folder}; wait for it, or give other --arms"
        ) from None
    with lock:
        # another command may have trained it meanwhile
        now = ArmTraining(
            training.folder, training.arm, training.repeat, state_of(fold_folder, training.folder, slicing)
        )
        if now.state == FINISHED:
            console.print("finished by another command", highlight=False)
            return
        Path(now.variables()["nnUNet_results"]).mkdir(parents=True, exist_ok=True)
        training.folder.link_first_stage(training.arm, training.repeat)
        require_unused(fold_folder)
        run_command(
            "nnUNetv2_train",
            now.arguments(settings.device),
            console,
            now.variables(),
            watch=None if settings.verbose else TrainingWatch(fold_folder, console),
        )
        if state_of(fold_folder, training.folder, slicing) != FINISHED:
            raise InputError(f"nnUNetv2_train ended without a checkpoint and a validation in {fold_folder}")
