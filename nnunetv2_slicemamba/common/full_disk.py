"""The error of a full disk, told with the file, the room that is left and the remedy."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
# with less room than this, a library's error without a number is taken for that of a full disk
_NO_ROOM = 1 << 16


class DiskFullError(OSError):
    """A file cannot be written for want of room; `errno` as the operating system gave it."""

    def __str__(self) -> str:
        return str(self.strerror)


@contextlib.contextmanager
def full_disk_told(file: Path, written: Path | None = None) -> Iterator[None]:
    """Raises the error of a full disk, or of a used up quota, in the block as DiskFullError.

    file: that the block writes. written: where it does, if under another name.
    """
    try:
        yield
    except DiskFullError:
        raise
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise _told(file, written or file, error.errno) from error
    except RuntimeError as error:  # PyTorch's writer of archives
        if _free(file) >= _NO_ROOM:
            raise
        raise _told(file, written or file, errno.ENOSPC) from error


def _told(file: Path, written: Path, number: int) -> DiskFullError:
    size = written.stat().st_size if written.is_file() else 0
    quota = "" if number == errno.ENOSPC else ", and your quota there is used up"
    return DiskFullError(
        number,
        f"{file} could not be written ({os.strerror(number)}): after {_text(size)} of it, {_text(_free(file))} are "
        f"free on the disk of {file.absolute().parent}{quota}. Make room, and the same command goes on",
    )


def _free(file: Path) -> int:
    folder = next(parent for parent in file.absolute().parents if parent.is_dir())
    return shutil.disk_usage(folder).free


def _text(size: int) -> str:
    return f"{size} bytes" if size < 10**6 else f"{size / 10**6:.1f} MB"
