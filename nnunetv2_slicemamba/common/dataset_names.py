"""Dataset IDs and the names of dataset folders, as nnU-Net reads them; nothing slow is imported."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.names import is_number

# nnU-Net knows no highest ID; a slip of the hand should not become one
HIGHEST_ID = 999_999
# nnU-Net pads an ID to three digits; a longer one has no leading zero
_NAME = re.compile(r"Dataset(\d{3}|[1-9]\d{3,})_.+", re.ASCII | re.DOTALL)


def dataset_folder_name(dataset_id: int, name: str) -> str:
    """DatasetXXX_NAME."""
    return f"Dataset{dataset_id:03d}_{name}"


def dataset_id_of(folder_name: str) -> int:
    """The ID in the name of a dataset's folder. Raises InputError for a name that nnU-Net does not know as one."""
    match = _NAME.fullmatch(folder_name)
    if match is None:
        raise InputError(
            f"{folder_name!r} is not the name of a dataset; nnU-Net's are DatasetXXX_NAME, with an ID of at least "
            "three digits"
        )
    return int(match[1])


def datasets_in(root: Path) -> list[str]:
    """The names of the datasets in one of nnU-Net's folders, in order; none if there is no such folder."""
    if not root.is_dir():
        return []
    return sorted(path.name for path in root.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())


def sharing_id(dataset_id: int, names: Iterable[str]) -> list[str]:
    """Those datasets that nnU-Net cannot tell apart by the ID.

    nnU-Net looks for folders that begin with DatasetXXX, so that 100 also finds Dataset1001_NAME.
    """
    asked = f"Dataset{dataset_id:03d}"
    return [name for name in names if name.startswith(asked) or asked.startswith(name.partition("_")[0])]


def named_by(dataset: str, names: Iterable[str]) -> list[str]:
    """The datasets that `dataset` names: an ID such as 501, or a whole name. More than one where an ID is shared."""
    if not is_number(dataset):
        return [name for name in names if name == dataset]
    asked = f"Dataset{int(dataset):03d}_"
    return [name for name in names if name.startswith(asked)]
