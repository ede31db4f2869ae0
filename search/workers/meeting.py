"""The store in which the processes of a search meet, and the proof that a message is of one of them.

It is torch.distributed's key-value store, which lets anybody in who reaches its port. Where all processes are on one
machine, it listens there only. In any case every message carries a keyed hash (HMAC-SHA-256). The key is a secret that
only this user's processes can read.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.launcher import MOST_PORT, launcher_number
from nnunetv2_slicemamba.common.library_errors import library_errors
from nnunetv2_slicemamba.search.workers.processes import Process

if TYPE_CHECKING:
    from torch.distributed import Store, TCPStore

SECRET_VARIABLE = "SLICEMAMBA_SECRET"
SECRET_FILE = ".secret"  # beside the evaluations, which all processes see
LOOPBACK = "127.0.0.1"
POLL_SECONDS = 0.001
_SECRET_SECONDS = 10.0
_DIGEST = 2 * hashlib.sha256().digest_size  # as text


class ForeignMessageError(RuntimeError):
    """A message in the store that no process of the search wrote."""


class Messages(Protocol):
    """What a search needs of a store."""

    def set(self, key: str, value: str) -> None: ...
    def get(self, key: str) -> bytes: ...
    def add(self, key: str, amount: int) -> int: ...
    def check(self, keys: list[str]) -> bool: ...
    def delete_key(self, key: str) -> bool: ...


class SignedStore:
    """A store whose values only those who know the secret can write. Its counters anybody can change.

    `get` raises ForeignMessageError for a value that was written without the secret, or for another key.
    """

    def __init__(self, store: Store, secret: bytes) -> None:
        self.store, self._secret = store, secret

    def set(self, key: str, value: str) -> None:
        self.store.set(key, self._digest(key, value.encode()) + value)

    def get(self, key: str) -> bytes:
        value = self.store.get(key)
        content = value[_DIGEST:]
        if not hmac.compare_digest(value[:_DIGEST], self._digest(key, content).encode()):
            raise ForeignMessageError(
                f"the message {key!r} in the store of the search was not written by one of its processes. "
                f"{SECRET_VARIABLE} differs between them, or a stranger reaches the store: set it to the same random "
                "text in the environment of all, and start the search again. What was evaluated is kept"
            )
        return content

    def add(self, key: str, amount: int) -> int:
        return self.store.add(key, amount)

    def check(self, keys: list[str]) -> bool:
        return bool(self.store.check(keys))

    def delete_key(self, key: str) -> bool:
        return bool(self.store.delete_key(key))

    def _digest(self, key: str, content: bytes) -> str:
        return hmac.digest(self._secret, key.encode() + b"\0" + content, "sha256").hex()


def meet(process: Process, folder: Path, environ: Mapping[str, str] = os.environ) -> SignedStore:
    """The store in which the processes of a search meet.

    folder: of the search's evaluations, which all of them see. SLICEMAMBA_SECRET in the launcher's environment takes
    the place of a secret kept there. Raises InputError if that secret may be known to other users.
    """
    secret = (environ.get(SECRET_VARIABLE) or shared_secret(folder)).encode()
    has_agent = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not is_on_one_machine(process, environ):
        store = _launchers_store(process)
    elif has_agent:
        # torchrun's own store listens to everybody: there, only the port of ours is told
        told = SignedStore(_launchers_store(process), secret)
        if process.is_writer:
            store = _listen_here(0)
            told.set("port", str(store.port))
        else:
            wait_for(told, "port")
            store = _connect_here(int(told.get("port")))
    else:
        port = launcher_number("MASTER_PORT", below=MOST_PORT, environ=environ)
        # whichever starts first waits for the others, as torch's own store of a job does
        store = _listen_here(port, process.world) if process.is_writer else _connect_here(port, process.world)
    return _of_this_job(store, secret, process.is_writer)


def is_on_one_machine(process: Process, environ: Mapping[str, str]) -> bool:
    """True if the launcher says that all processes are on this machine."""
    address = environ.get("MASTER_ADDR", "")
    counted = environ.get("LOCAL_WORLD_SIZE") == str(process.world)
    return counted or address == "localhost" or address.startswith("127.")


def shared_secret(folder: Path) -> str:
    """The secret of a folder, made by the first process that asks; only the folder's user can read it."""
    file = folder / SECRET_FILE
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return _read_secret(file)
    with os.fdopen(descriptor, "w") as opened:
        made = secrets.token_hex(32)
        opened.write(made)
    return made


def _read_secret(file: Path) -> str:
    give_up = time.monotonic() + _SECRET_SECONDS
    while True:
        try:
            with file.open() as opened:
                status = os.fstat(opened.fileno())
                text = opened.read()
        except PermissionError:
            raise InputError(f"{file} is another user's; {_SECRET_REMEDY}") from None
        if hasattr(os, "getuid") and (status.st_uid not in (os.getuid(), 0) or status.st_mode & 0o077):
            raise InputError(f"other users can read or write {file}, which must be yours alone; {_SECRET_REMEDY}")
        if len(text) == 64:
            return text
        if time.monotonic() > give_up:
            raise InputError(f"{file} holds no secret; {_SECRET_REMEDY}")
        time.sleep(POLL_SECONDS)


_SECRET_REMEDY = f"delete it, or set {SECRET_VARIABLE} to a random text, the same for all processes"


def _launchers_store(process: Process) -> Store:
    from torch.distributed import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    with library_errors("torch", "the processes of the search cannot meet", "start all of them with torchrun"):
        store, _, _ = next(rendezvous("env://", process.rank, process.world))
    return PrefixStore("slicing_search", store)


def _listen_here(port: int, world: int | None = None) -> TCPStore:
    """A store that this machine alone reaches. port: 0 for any that is free. world: processes to wait for."""
    from torch.distributed import TCPStore
    from torch.distributed.constants import default_pg_timeout

    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((LOOPBACK, port))
        except OSError as error:
            raise InputError(f"MASTER_PORT is {port}, which is in use ({error.strerror}); give another") from error
        listening.listen(128)
        used = listening.getsockname()[1]
        descriptor = listening.detach()
    return TCPStore(
        LOOPBACK, used, world, True, default_pg_timeout, wait_for_workers=world is not None, master_listen_fd=descriptor
    )


def _connect_here(port: int, world: int | None = None) -> TCPStore:
    from torch.distributed import TCPStore
    from torch.distributed.constants import default_pg_timeout

    return TCPStore(LOOPBACK, port, world, False, default_pg_timeout, wait_for_workers=world is not None)


def _of_this_job(store: Store, secret: bytes, is_writer: bool) -> SignedStore:
    """The store with a key of this job alone: messages of an earlier one, which a stranger may have kept, are none."""
    signed = SignedStore(store, secret)
    if is_writer:
        signed.set("job", secrets.token_hex(16))
    wait_for(signed, "job")
    return SignedStore(store, hmac.digest(secret, signed.get("job"), "sha256"))


def wait_for(store: Messages, key: str) -> None:
    """Waits until a key is there; raises what torch.distributed raises when the store is gone."""
    while not store.check([key]):
        time.sleep(POLL_SECONDS)
