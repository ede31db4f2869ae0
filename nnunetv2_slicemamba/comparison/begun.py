"""Runs and comparisons with several steps at once that were begun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.folders import InputError, require_folder
from nnunetv2_slicemamba.comparison.at_once import comparisons_of, read_comparison
from nnunetv2_slicemamba.pipeline.graph import read_run, runs_of
from nnunetv2_slicemamba.pipeline.run_folder import STEPS_FOLDER, RunFolder
from nnunetv2_slicemamba.pipeline.step import Step
from nnunetv2_slicemamba.planning.selection import require_dataset


def begun_of(dataset: str, configuration: str | None = None, output: Path | None = None) -> list[RunFolder]:
    """The folders of a dataset's runs and comparisons at once, of one configuration or of all.

    output: folder of a comparison that lies elsewhere, which alone is meant then. Raises InputError if there is none.
    """
    if output is not None:
        found, place = [RunFolder(output.absolute() / STEPS_FOLDER)], output
        found = [one for one in found if one.file.is_file()]
    else:
        found = [*runs_of(dataset, configuration), *comparisons_of(dataset, configuration)]
        place = require_folder("nnUNet_results") / require_dataset(dataset, "nnUNet_results")
    if not found:
        which = "" if configuration is None else f" of configuration {configuration!r}"
        raise InputError(
            f"{place} has no run{which} with several steps at once; 'slicemamba run' and 'slicemamba compare' begin "
            "one with --gpus or --at-once, 'slicemamba run' also with --launcher slurm"
        )
    return found


def read_begun(folder: RunFolder) -> tuple[list[Step], dict[str, Any]]:
    """The steps of a run or a comparison that was begun, and its description."""
    return read_comparison(folder) if folder.path.name == STEPS_FOLDER else read_run(folder)
