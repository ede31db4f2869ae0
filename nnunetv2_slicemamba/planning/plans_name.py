"""The names of plans and of their dataset, those of file and folder and those inside, which have to agree.

nnU-Net reads plans by the names of file and folder, and names result folders by `plans_name` and `dataset_name`, see
https://github.com/MIC-DKFZ/nnUNet/issues/1650. Where they differ, as after a dataset was renamed, a training reads and
writes in another folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.json_reading import JsonFileError, JsonKind

_ANYTHING = JsonKind("a JSON file", Any, "Restore it")
ADDED_BY_NNUNET = "continue_training"  # entry that nnU-Net's training command adds to the plans that it has read


def require_same_name(plans: Mapping[str, Any], file: Path) -> None:
    """Raises InputError unless `plans`, read from `file`, name themselves and their dataset as file and folder do."""
    inside, name = plans.get("plans_name"), file.stem
    if inside != name:
        other = f", or pass -p {inside} if its plans are meant" if isinstance(inside, str) else ""
        raise InputError(
            f"{file} is named {name!r}, but the plans_name in it is {inside!r}, and nnU-Net names result folders by "
            f'that one: change it in the file ("plans_name": "{name}"){other}'
        )
    dataset = file.parent.name
    if (inside := plans.get("dataset_name", dataset)) != dataset:
        raise InputError(
            f"{file} lies in the folder of {dataset}, but the dataset_name in it is {inside!r}, and nnU-Net would read "
            f'and write there: change it in the file ("dataset_name": "{dataset}"), or move the folder back'
        )


def require_file_of_own_name(plans: Mapping[str, Any], folder: Path) -> bool:
    """Checks plans whose file is not known, as nnU-Net hands them to a trainer.

    folder: nnUNet_preprocessed/DATASET. Returns True if PLANS.json of that folder holds just these plans, False if no
    file there does. Raises InputError if only files of other names do.
    """
    wanted = {key: value for key, value in plans.items() if key != ADDED_BY_NNUNET}
    if _content(folder / f"{wanted.get('plans_name')}.json") == wanted:
        return True
    for file in sorted(folder.glob("*.json")):
        if _content(file) == wanted:
            require_same_name(wanted, file)
    return False


def _content(file: Path) -> Any:
    try:
        return _ANYTHING.read(file)
    except (JsonFileError, OSError):  # a file that cannot be read is not the one that was
        return None
