"""Predictions of a cascade's first stage, without which its second stage cannot be trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.nnunet_files import SPLITS_JSON
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.planning.selection import Selection

EXAMPLES = 3


def require_first_stage(selection: Selection, trainer: str) -> None:
    """Raises InputError as `require_predictions` does if a fold of a cascade's second stage cannot be trained.

    trainer: of the first stage.
    """
    manager = selection.configuration_manager
    if manager.previous_stage_name is None:
        return
    first = replace(selection, configuration=manager.previous_stage_name).configuration_folder(trainer)
    folder = selection.preprocessed_folder
    splits = SPLITS_JSON.read_if_there(folder / "splits_final.json")
    if splits is None or not isinstance(selection.fold, int):
        cases = [file.stem for file in (folder / manager.data_identifier).glob("*.pkl")]
    else:
        cases = [*splits[selection.fold]["train"], *splits[selection.fold]["val"]]
    require_predictions(first / "predicted_next_stage" / selection.configuration, cases)


def require_predictions(folder: Path, cases: Iterable[str]) -> None:
    """Raises InputError, naming what makes them, if a cascade's first stage has not predicted all of these cases.

    folder: nnUNet_results/DATASET/TRAINER__PLANS__STAGE/predicted_next_stage/CONFIG.
    """
    needed = set(cases)
    missing = sorted(needed - {file.stem for file in folder.glob("*")})
    if not missing:
        return
    trained = folder.parents[1]
    trainer, plans, stage = trained.name.split("__")
    command = shell_line("nnUNetv2_train", trained.parent.name, stage, "FOLD", "-tr", trainer, "-p", plans)
    more = ", ..." if len(missing) > EXAMPLES else ""
    raise InputError(
        f"{len(missing)} of {len(needed)} cases have no prediction of the first stage in {folder}: "
        f"{', '.join(missing[:EXAMPLES])}{more}; '{command}' makes them, for every FOLD"
    )
