"""The steps of a whole run, and what its folder says was asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.folders import require_folder
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.pipeline.ending_steps import ending_steps
from nnunetv2_slicemamba.pipeline.fold_steps import RunSettings, steps_of_fold
from nnunetv2_slicemamba.pipeline.preparing import Planning, after_planning, named_selections, planning_step
from nnunetv2_slicemamba.pipeline.run_folder import RUN_FILE, RUN_JSON, STEPS_FOLDER, RunFolder
from nnunetv2_slicemamba.pipeline.step import Step
from nnunetv2_slicemamba.planning.selection import Selection, require_dataset


def steps_folder(dataset: str) -> Path:
    """The folder of a dataset's runs with several steps at once. dataset: name."""
    return require_folder("nnUNet_results") / dataset / STEPS_FOLDER


def run_folder(selections: Sequence[Selection], settings: RunSettings) -> RunFolder:
    """The folder of a run."""
    results = selections[0].configuration_folder(settings.trainer)
    return RunFolder(steps_folder(selections[0].dataset) / results.name)


def runs_of(dataset: str, configuration: str | None = None) -> list[RunFolder]:
    """The folders of a dataset's runs with several steps at once, of one configuration or of all."""
    runs = steps_folder(require_dataset(dataset, "nnUNet_results"))
    folders = [RunFolder(file.parent) for file in sorted(runs.glob(f"*/{RUN_FILE}"))]
    return [one for one in folders if configuration in (None, one.path.name.rpartition("__")[2])]


def graph_of(selections: Sequence[Selection], settings: RunSettings) -> list[Step]:
    """All steps of a run, fold after fold; those of all folds at the end, if `settings.predict`."""
    folds = [steps_of_fold(selection, settings) for selection in selections]
    steps = [step for fold in folds for step in fold]
    return steps + ending_steps_of(selections, settings)


def ending_steps_of(selections: Sequence[Selection], settings: RunSettings) -> list[Step]:
    """The steps after all folds; none unless `settings.predict`."""
    if not settings.predict:
        return []
    return ending_steps(selections, settings, [steps_of_fold(one, settings)[-1].name for one in selections])


def write_run(folder: RunFolder, selections: Sequence[Selection], settings: RunSettings, **also: Any) -> None:
    """Writes a run's description. also: command, process, host and started, as RUN_JSON has them."""
    first = selections[0]
    asked = {"dataset": first.dataset, "configuration": first.configuration, "plans_name": first.plans_name}
    folds = [str(selection.fold) for selection in selections]
    write_json(folder.file, {**asked, "folds": folds, "settings": asdict(settings), **also})


def read_run(folder: RunFolder) -> tuple[list[Step], dict[str, Any]]:
    """The steps of a run that was begun, and its description."""
    asked = RUN_JSON.read(folder.file)
    return steps_of(asked), asked


def steps_of(asked: dict[str, Any], folds: Collection[str] | None = None) -> list[Step]:
    """The steps of a run by its description. folds: those that it is narrowed to; None for all."""
    selections, settings = selections_of(asked, folds)
    steps = graph_of(selections, settings)
    if asked.get("planning") is None:
        return steps
    planning = planning_step(selections, Planning(**asked["planning"]), settings.sliced)
    return after_planning(planning, steps)


def selections_of(asked: dict[str, Any], folds: Collection[str] | None = None) -> tuple[list[Selection], RunSettings]:
    """Selections and settings of a run by its description; as `steps_of`."""
    wanted = [fold for fold in asked["folds"] if folds is None or fold in folds]
    settings = settings_of(asked)
    names = (asked["dataset"], asked["configuration"], wanted, asked["plans_name"])
    return named_selections(*names, any_network=not settings.sliced), settings


def settings_of(asked: dict[str, Any]) -> RunSettings:
    """Settings of a run by its description."""
    # older runs do not say whether they search: all did
    known = {one.name: asked["settings"].get(one.name, one.default) for one in fields(RunSettings)}
    return RunSettings(**{**known, "search_arguments": tuple(known["search_arguments"])})
