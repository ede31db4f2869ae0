"""Files written whole: a reader sees the old content or the new one, never half of it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from nnunetv2_slicemamba.common.full_disk import full_disk_told
from nnunetv2_slicemamba.common.other_processes import host_mark, lives

# .NAME.HOST-PROCESS.part.ENDING
_TEMPORARY = re.compile(r"\..+\.(?P<host>[A-Za-z0-9_-]+)-(?P<process>[0-9]+)\.part(\.[^.]*)?")
_LONG_BYTES = 160
# of a process on another machine nobody here knows whether it has ended
OLD_SECONDS = 24 * 3600.0


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path in the same folder, which takes the place of `path` once the block has ended well.

    The folder is made if it is missing. Whatever ends the block early leaves `path` as it was. The bytes are on disk
    before the name changes, so that not even a power failure leaves an empty file. What killed processes have left in
    the folder is removed. Raises DiskFullError where the disk is full.
    """
    path = Path(path)
    with full_disk_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(path.parent, os.getpid())
    # Not tempfile: it makes files that only their owner may read, and results are shared. The ending is kept because
    # matplotlib tells the format by it.
    # PyTorch writes the name into checkpoints, which are given to others: it must not name the machine.
    temporary = path.with_name(f".{_shortened(path.stem)}.{host_mark()}-{os.getpid()}.part{path.suffix}")
    try:
        with full_disk_told(path, temporary):
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno is None or error.filename != str(temporary):
            raise
        # whoever reads the message knows the file's own name
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _shortened(stem: str) -> str:
    """A name with room for what a temporary file's has more, where file systems take 255 bytes."""
    raw = os.fsencode(stem)
    return stem if len(raw) <= _LONG_BYTES else hashlib.sha256(raw).hexdigest()


def sweep(folder: Path) -> None:
    """Removes the temporary files in a folder whose process has ended without renaming them."""
    for file in folder.glob(".*.part*"):
        match = _TEMPORARY.fullmatch(file.name)
        if match is None:
            continue
        with contextlib.suppress(OSError):  # another process may have swept it, or may alone be allowed to
            if match["host"] == host_mark():
                is_left = not lives(int(match["process"]))
            else:
                is_left = time.time() - file.stat().st_mtime > OLD_SECONDS
            if is_left:
                file.unlink()


@functools.lru_cache(maxsize=1024)
def _sweep_once(folder: Path, process: int) -> None:
    sweep(folder)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # Windows cannot open a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
