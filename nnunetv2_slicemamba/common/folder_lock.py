"""Locks of folders: no two trainings, no training and search, and no two plannings work in one folder at once."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.other_processes import host, lives
from nnunetv2_slicemamba.common.provenance import now

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".in_use"
WAIT_SECONDS = 1.0  # between two looks at a lock that is waited for
_TAKEN = (errno.EACCES, errno.EAGAIN)
# of file systems that keep no locks
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_MAY_NOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS)
# Closing any descriptor of a file ends this process's lock of it, so no file is opened a second time.
_held: set[Path] = set()


class FolderInUseError(RuntimeError):
    """Another process works in a folder; the message says which, since when, and what to do."""


@contextlib.contextmanager
def in_use(folder: Path, shared: bool = False) -> Iterator[None]:
    """Context in which no other process gets the lock of `folder`, which is made if it is missing.

    shared: others may have it too that ask for a shared one. The lock is a file `.in_use`, which says who works there.
    The system ends the lock with its process, on this machine and, on network file systems that keep locks, on others;
    forked processes do not inherit it. Where a file system keeps no locks, the file alone counts: what an ended process
    of this machine has left is taken over, what one of another machine has left has to be deleted by hand.
    On Windows there is no lock. Raises FolderInUseError naming the process that has the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    path = folder.resolve() / LOCK_FILE
    if path in _held:
        raise FolderInUseError(f"{folder} is in use by this process already; end what works there first")
    descriptor, locked = _acquire(path, shared)
    _held.add(path)
    try:
        with contextlib.suppress(OSError):  # on a full disk nobody reads who has the lock
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _who_we_are(), 0)
        yield
    finally:
        _held.discard(path)
        with contextlib.suppress(OSError):
            if not locked or _is_only_holder(descriptor):
                path.unlink()
        os.close(descriptor)


@contextlib.contextmanager
def in_use_after_others(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """`in_use`, once the process that has the lock has ended: for work that the next one finds done.

    say: is told once who has the lock, if somebody has.
    """
    told = False
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(in_use(folder))
                break
            except FolderInUseError as error:
                if folder.resolve() / LOCK_FILE in _held:
                    raise
                if not told:
                    say(f"waiting: {error}")
                told = True
            time.sleep(WAIT_SECONDS)
        yield


def require_unused(folder: Path) -> None:
    """Raises FolderInUseError if another process has the lock of `folder`."""
    path = folder.resolve() / LOCK_FILE
    if not path.is_file():
        return
    try:
        with in_use(folder):
            pass
    except OSError as error:
        if error.errno not in _MAY_NOT_WRITE or path in _held:
            raise
        _require_left(path)


def _require_left(path: Path) -> None:
    """`require_unused` of somebody who may only read the lock's file, such as that of another user.

    A lock that is shared on another machine is not noticed.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        holder = _holder(descriptor)
        is_taken = _lock(descriptor, shared=True) is None
        if is_taken or (holder.get("host") == host() and not _is_left(holder)):
            raise FolderInUseError(_refusal(path, holder, is_taken))
    finally:
        os.close(descriptor)


def _acquire(path: Path, shared: bool) -> tuple[int, bool]:
    """A descriptor of the lock's file, and whether the file system keeps the lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked = _lock(descriptor, shared)
            if locked is None or (not locked and not _is_left(_holder(descriptor))):
                raise FolderInUseError(_refusal(path, _holder(descriptor), locked is None))
            if not locked or _is_same(descriptor, path):
                return descriptor, locked
        except BaseException:
            os.close(descriptor)
            raise
        # whoever had the lock has removed the file between our opening and locking it
        os.close(descriptor)


def _lock(descriptor: int, shared: bool) -> bool | None:
    """True if the lock is ours, None if it is another process's, False if there are no locks."""
    try:
        fcntl.lockf(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return None
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def _is_only_holder(descriptor: int) -> bool:
    return _lock(descriptor, shared=False) is True


def _is_same(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


def _who_we_are() -> bytes:
    command = shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]])
    return json.dumps({"host": host(), "process": os.getpid(), "since": now(), "command": command}).encode()


def _holder(descriptor: int) -> dict[str, Any]:
    """What the lock's file says; nothing if it has just been made."""
    try:
        content = json.loads(os.pread(descriptor, 1 << 16, 0))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_left(holder: dict[str, Any]) -> bool:
    """Whether the process that a lock's file names has ended."""
    if not holder:
        return True
    return holder.get("host") == host() and isinstance(holder.get("process"), int) and not lives(holder["process"])


def _refusal(path: Path, holder: dict[str, Any], kept: bool) -> str:
    known = {key: str(holder.get(key, "unknown")) for key in ("host", "process", "since", "command")}
    remedy = "" if kept else f". If that one has ended, delete {path}: this file system does not end locks by itself"
    return (
        f"{path.parent} is in use by process {known['process']} on {known['host']} since {known['since']} "
        f"({known['command']}). Two would write over each other: wait for that one, or end it{remedy}"
    )
