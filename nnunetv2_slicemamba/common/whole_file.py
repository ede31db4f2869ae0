"""Files written whole: a reader sees the old content or the new one, never half of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from nnunetv2_slicemamba.common.full_disk import full_disk_told


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path in the same folder, which takes the place of `path` once the block has ended well.

    The folder is made if it is missing. Whatever ends the block early leaves `path` as it was. The bytes are on disk
    before the name changes, so that not even a power failure leaves an empty file. Raises DiskFullError where the disk
    is full.
    """
    path = Path(path)
    with full_disk_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: it makes files that only their owner may read, and results are shared. The ending is kept because
    # matplotlib tells the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with full_disk_told(path, temporary):
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # Windows cannot open a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
