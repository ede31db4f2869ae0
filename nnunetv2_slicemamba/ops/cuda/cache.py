"""Compiled kernels on disk: files that nobody else could have written.

What is loaded into the driver runs on the GPU with the user's rights. So a file is taken only from a folder that other
users cannot write to, if it is the user's own, and with the hash that was written with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import stat
import tempfile
from functools import lru_cache
from pathlib import Path

CACHE_VARIABLE = "SLICEMAMBA_CACHE"
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_DIGEST = hashlib.sha256().digest_size

log = logging.getLogger(__name__)


def read(name: str) -> bytes | None:
    """The content of a kept file, None if there is none that can be trusted."""
    try:
        # not through a link, which might lead to a file of another name
        descriptor = os.open(cache_folder() / name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or not is_private(status):
                return None
            kept = file.read()
    except OSError:
        return None
    content = kept[_DIGEST:]
    return content if content and hmac.compare_digest(kept[:_DIGEST], _digest(name, content)) else None


def write(name: str, content: bytes) -> None:
    """Keeps a file; where that is not possible, the log says so and nothing else happens."""
    path = cache_folder() / name
    try:
        # several processes may compile the same file at once, so it appears complete or not at all
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # which its owner alone may write
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(_digest(name, content) + content)
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        log.info("compiled kernels are not kept, %s cannot be written (%s)", path, error)


def cache_folder() -> Path:
    """Folder of the compiled kernels, made if it is missing.

    $SLICEMAMBA_CACHE, else `slicemamba` in the user's cache folder ($XDG_CACHE_HOME, ~/.cache). Where other users could
    write to it, or there is no home, it is a folder of the user's own among the temporary files.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    return _private(chosen or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "slicemamba"), bool(chosen))


def is_private(status: os.stat_result) -> bool:
    """True if a file or folder is this user's or the system's, and nobody else may write to it."""
    if not hasattr(os, "getuid"):  # Windows has other permissions, and its folders of users are private
        return True
    return status.st_uid in (os.getuid(), 0) and not status.st_mode & OTHERS_WRITE


@lru_cache(maxsize=8)
def _private(name: str, chosen: bool) -> Path:
    folder = Path(os.path.expanduser(name))
    if str(folder).startswith("~"):
        return _temporary(f"there is no home folder for {folder}")
    # a folder that cannot be made or looked at keeps nothing, which `write` says
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not chosen and hasattr(os, "getuid") and folder.stat().st_uid == os.getuid():
            # made by an earlier version, with the permissions that new folders have
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) & ~OTHERS_WRITE)
        if not is_private(folder.stat()):
            return _temporary(f"other users can write to {folder}")
    return folder


def _temporary(why: str) -> Path:
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"slicemamba-{user}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or not folder.is_dir() or not is_private(folder.stat()):
        folder = Path(tempfile.mkdtemp(prefix="slicemamba-"))
    log.warning("compiled kernels are kept in %s: %s. Set %s to a folder of your own", folder, why, CACHE_VARIABLE)
    return folder


def _digest(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + content).digest()
