"""Files under a temporary name until they are complete, so that an interrupted conversion is recognised."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from nnunetv2_slicemamba.common.folder_lock import LOCK_FILE
from nnunetv2_slicemamba.common.full_disk import full_disk_told

PREFIX = ".part_"


def write_whole(target: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` with a temporary path beside `target`, and gives the result its name once it is complete."""
    # the ending stays: nibabel and Pillow choose the format by it
    part = target.with_name(f"{PREFIX}{os.getpid()}_{target.name}")
    try:
        with full_disk_told(target, part):
            write(part)
            os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def holds_parts_only(folder: Path) -> bool:
    """True for an empty folder, and for one with nothing but its lock and what killed processes have left."""
    return all(path.name.startswith(PREFIX) or path.name == LOCK_FILE for path in folder.iterdir())


def remove_parts(folder: Path) -> None:
    """Removes what killed processes have left in a folder and below it."""
    for part in folder.rglob(f"{PREFIX}*"):
        part.unlink()
