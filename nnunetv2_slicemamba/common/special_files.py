"""Pipes, sockets and devices, which have a path like a file, and of which reading waits or never ends."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from nnunetv2_slicemamba.common.folders import InputError

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def special_kind(path: str | Path) -> str | None:
    """Kind of a special file in words, such as "a named pipe"; None for a file, a folder, and where nothing is."""
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
    except (OSError, ValueError):
        return None


def require_no_special(path: str | Path) -> None:
    """Raises InputError for what `special_kind` names."""
    if kind := special_kind(path):
        raise InputError(f"{path} is {kind}, which is not read; put a file in its place, or remove it")
