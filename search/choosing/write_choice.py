"""Writing a fold's slicing file, whoever chose the slicing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.full_disk import full_disk_told
from nnunetv2_slicemamba.common.json_files import plain_json
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.search.fitness import FITNESS_DEFINITION
from nnunetv2_slicemamba.slicing.choice import FINALISTS, SlicingChoice
from nnunetv2_slicemamba.slicing.file import SlicingFile, SlicingFileError, read_slicing_file, write_slicing_file
from nnunetv2_slicemamba.slicing.measured_on import MeasuredOn


def write_choice(
    folder: SupernetFolder,
    choice: SlicingChoice,
    checkpoint_hash: str | None,
    plans_hash: str,
    measured_on: MeasuredOn | None = None,
    complete: bool = True,
    by_hand: bool = False,
) -> Path:
    """Writes a fold's slicing file; one with another slicing is kept beside it.

    by_hand: the file of a slicing that was set by hand, in place of the search's best_slicing.json.
    """
    selection = folder.selection
    file = selection.set_slicing_file if by_hand else folder.slicing_file
    content = SlicingFile(
        choice=choice,
        candidates=selection.candidates,
        fitness_definition=FITNESS_DEFINITION if choice.fitness is not None else None,
        dataset=selection.dataset,
        configuration=selection.configuration,
        plans_name=selection.plans_name,
        fold=selection.fold,
        supernet_checkpoint_sha256=checkpoint_hash,
        plans_sha256=plans_hash,
        measured_on=measured_on,
        complete=complete,
    )
    if file.is_file() and not holds(file, choice):
        previous = file.with_name(f"previous_{file.name}")
        with full_disk_told(previous):
            shutil.copy2(file, previous)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_slicing_file(content, file)
    return file


def was_chosen_in_finals(file: Path, checkpoint_hash: str, plans_hash: str, settings: Mapping[str, Any]) -> bool:
    """True if a slicing file has what finals chose among the results of this supernet's search with these settings."""
    try:
        content = read_slicing_file(file)
    except SlicingFileError:
        return False
    of_same = (content.supernet_checkpoint_sha256, content.plans_sha256) == (checkpoint_hash, plans_hash)
    details = content.choice.details
    return content.complete and of_same and FINALISTS in details and details.get("settings") == plain_json(settings)


def holds(file: Path, choice: SlicingChoice) -> bool:
    """True if a slicing file can be read and has the slicing of `choice`."""
    try:
        return read_slicing_file(file).slicing == choice.slicing
    except SlicingFileError:
        return False
