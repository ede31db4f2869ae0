"""Trainings of a comparison side by side, each in a place of its own; and what its folder says of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from nnunetv2_slicemamba.common.folder_lock import require_unused
from nnunetv2_slicemamba.common.folders import require_folder
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.common.json_reading import JsonKind
from nnunetv2_slicemamba.common.other_processes import host
from nnunetv2_slicemamba.common.provenance import now
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.comparison.folder import ComparisonFolder
from nnunetv2_slicemamba.comparison.trainings import FINISHED, NEW, ArmTraining, state_of
from nnunetv2_slicemamba.pipeline.at_once import only_run, run_at_once
from nnunetv2_slicemamba.pipeline.places import Place
from nnunetv2_slicemamba.pipeline.run_folder import BEGUN, RUN_FILE, STEPS_FOLDER, RunFolder
from nnunetv2_slicemamba.pipeline.step import Command, Finished, Step
from nnunetv2_slicemamba.planning.selection import require_dataset, select
from nnunetv2_slicemamba.slicing.candidates import Slicing
from nnunetv2_slicemamba.slicing.file import read_slicing_file

_ASKED = {"dataset": str, "configuration": str, "plans_name": str, "fold": str, "trainer": str, "device": str}
COMPARISON_JSON = JsonKind(
    "a comparison's description",
    {**_ASKED, "trainings": [{"arm": str, "repeat": int}], **BEGUN},
    "Delete it; 'slicemamba compare' writes it anew, and takes no finished training again",
)


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
        for one in trainings:
            folder.results_root(one.arm, one.repeat).mkdir(parents=True, exist_ok=True)
            folder.link_first_stage(one.arm, one.repeat)
        _write(run, folder, trainings, device)
        run_at_once(steps, places, run, console, f"{folder.trainer}, {folder.selection.configuration}")


def _write(run: RunFolder, folder: ComparisonFolder, trainings: Sequence[ArmTraining], device: str) -> None:
    selection = folder.selection
    write_json(
        run.file,
        {
            "dataset": selection.dataset,
            "configuration": selection.configuration,
            "plans_name": selection.plans_name,
            "fold": str(selection.fold),
            "trainer": folder.trainer,
            "device": device,
            "trainings": [{"arm": one.arm, "repeat": one.repeat} for one in trainings],
            **{"command": shell_line("slicemamba", *sys.argv[1:]), "process": os.getpid(), "host": host()},
            "started": now(),
        },
    )


def comparisons_of(dataset: str, configuration: str | None = None) -> list[RunFolder]:
    """The folders `steps` of a dataset's comparisons at once that lie in nnUNet_results."""
    results = require_folder("nnUNet_results") / require_dataset(dataset, "nnUNet_results")
    found = sorted((results / "comparison").glob(f"*/fold_*/{STEPS_FOLDER}/{RUN_FILE}"))
    return [
        RunFolder(file.parent) for file in found if configuration in (None, file.parents[2].name.rpartition("__")[2])
    ]


def read_comparison(run: RunFolder) -> tuple[list[Step], dict[str, Any]]:
    """The trainings of a comparison that was begun, as steps, and its description."""
    asked = COMPARISON_JSON.read(run.file)
    selection = select(asked["dataset"], asked["configuration"], asked["fold"], asked["plans_name"])
    folder = ComparisonFolder(selection, asked["trainer"], run.path.parent)
    steps = []
    for one in asked["trainings"]:
        slicing = read_slicing_file(folder.slicing_file(one["arm"])).slicing
        steps.append(_step(ArmTraining(folder, one["arm"], one["repeat"], NEW), slicing, asked["device"]))
    return steps, asked


def _step(training: ArmTraining, slicing: Slicing, device: str) -> Step:
    folder, arm, repeat = training.folder, training.arm, training.repeat
    fold_folder = folder.fold_folder(arm, repeat)

    def look() -> Command | Finished:
        require_unused(fold_folder)
        now = ArmTraining(folder, arm, repeat, state_of(fold_folder, folder, slicing))
        if now.state == FINISHED:
            return Finished()
        return Command("nnUNetv2_train", tuple(now.arguments(device)), now.variables())

    return Step(f"{arm}_{repeat}", "", training.name, (), look, fold_folder)
