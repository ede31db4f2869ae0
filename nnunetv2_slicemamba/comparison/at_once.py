"""Trainings of a comparison side by side, each in a place of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console

from nnunetv2_slicemamba.common.folder_lock import require_unused
from nnunetv2_slicemamba.comparison.folder import ComparisonFolder
from nnunetv2_slicemamba.comparison.trainings import FINISHED, ArmTraining, state_of
from nnunetv2_slicemamba.pipeline.at_once import only_run, run_at_once
from nnunetv2_slicemamba.pipeline.places import Place
from nnunetv2_slicemamba.pipeline.run_folder import STEPS_FOLDER, RunFolder
from nnunetv2_slicemamba.pipeline.step import Command, Finished, Step
from nnunetv2_slicemamba.slicing.candidates import Slicing


def train_at_once(
    folder: ComparisonFolder,
    trainings: Sequence[ArmTraining],
    slicings: Mapping[str, Slicing],
    device: str,
    places: Sequence[Place],
    console: Console,
) -> None:
    """Trains and validates what is not finished, as many trainings at once as there are places.

    slicings: of the arms by name. Logs lie in ROOT/steps. A training that fails stops no other. Raises CommandError at
    the end that names what failed, FolderInUseError while another process trains the comparison's arms at once.
    """
    steps = [_step(training, slicings[training.arm], device) for training in trainings]
    run = RunFolder(folder.root / STEPS_FOLDER)
    with only_run(run):
        run_at_once(steps, places, run, console, f"{folder.trainer}, {folder.selection.configuration}")


def _step(training: ArmTraining, slicing: Slicing, device: str) -> Step:
    folder, arm, repeat = training.folder, training.arm, training.repeat
    fold_folder = folder.fold_folder(arm, repeat)

    def look() -> Command | Finished:
        require_unused(fold_folder)
        now = ArmTraining(folder, arm, repeat, state_of(fold_folder, folder, slicing))
        if now.state == FINISHED:
            return Finished("finished before")
        folder.results_root(arm, repeat).mkdir(parents=True, exist_ok=True)
        folder.link_first_stage(arm, repeat)
        return Command("nnUNetv2_train", tuple(now.arguments(device)), now.variables())

    return Step(f"{arm}_{repeat}", "", training.name, (), look, fold_folder)
