"""Optuna's storage of a study: opened, named for people, and its errors told with their remedy."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from sqlalchemy.engine import URL

# How long SQLite waits for another process's lock, in each of Optuna's five attempts.
LOCK_SECONDS = 20.0


class LedgerError(RuntimeError):
    """The ledger cannot be opened, read or written."""


class NoSearchError(LedgerError):
    """There is no such search to read."""


@contextlib.contextmanager
def opened(storage: str | Path, create: bool = True) -> Iterator[RDBStorage]:
    """The storage behind a SQLite file, made with its folder if missing, or behind a URL, for the time of the block.

    create: False for reading what is there, without making a table. Optuna is quiet meanwhile. Its errors, in the block
    too, are raised as LedgerErrors that name the storage and the remedy.
    """
    from optuna.exceptions import OptunaError, StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    where = location_of(storage)
    with quiet_optuna():
        try:
            database = _database(storage, create)
        except (OSError, ImportError, OptunaError, SQLAlchemyError, RuntimeError) as error:
            raise LedgerError(f"cannot open {where} as a study ({reason_of(error)}). {advice(error)}") from error
        try:
            yield database
        except (StorageInternalError, SQLAlchemyError) as error:
            raise LedgerError(
                f"the study in {where} cannot be used ({reason_of(error)}). All that is in it is kept. {advice(error)}"
            ) from error
        finally:
            database.remove_session()
            database.engine.dispose()


def _database(storage: str | Path, create: bool) -> RDBStorage:
    from optuna.storages import RDBStorage

    file = sqlite_file(storage)
    if file is None:
        # a server may have closed a connection that was idle for long
        # Optuna reads braces, which a password may have, as places to fill in
        url = str(storage).replace("{", "{{").replace("}", "}}")
        return RDBStorage(url, {"pool_pre_ping": True}, skip_table_creation=not create)
    file.parent.mkdir(parents=True, exist_ok=True)
    # A URL cannot name every file (SQLAlchemy and Optuna read #, ?, % and {} in it), so we connect ourselves; of the
    # URL only its kind counts.
    return RDBStorage(
        "sqlite:///study.db",
        {"creator": lambda: sqlite3.connect(file, timeout=LOCK_SECONDS, check_same_thread=False)},
        skip_table_creation=not create,
    )


def advice(error: BaseException) -> str:
    """Remedy of a storage's error."""
    reason = reason_of(error)
    if "locked" in reason:
        return "Another process holds it: end that one, or wait for it, and the same command continues"
    if "full" in reason or "No space" in reason:
        return "Make room on the disk, and the same command continues"
    return (
        "Is the folder writable, and the file an Optuna study? Move a damaged file away to begin anew; a URL's driver "
        "must be installed, and its server must answer"
    )


def location_of(storage: str | Path) -> str:
    """Place of a storage, for people to read: a file's path, or the URL without its password."""
    if is_url(storage):
        return url_of(storage).render_as_string(hide_password=True)
    return str(Path(storage).absolute())


def url_of(storage: str | Path) -> URL:
    """The parts of a storage's URL; LedgerError, which does not show the password, for what is none."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(str(storage))
    except (ArgumentError, ValueError):  # whose messages may hold a part of the password
        shown = re.sub(r"(?<=://).*@", "...@", str(storage))
        raise LedgerError(
            f"{shown} is no URL of a storage; give sqlite:////FOLDER/study.db or "
            "postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE, whose port is a number, and write @ : / in a "
            "password as %40 %3A %2F"
        ) from None


def is_url(storage: str | Path) -> bool:
    """True if a storage is given by URL and not by a file's path."""
    return isinstance(storage, str) and "://" in storage


def sqlite_file(storage: str | Path) -> Path | None:
    """The file of a SQLite storage, given by path or URL; None for a server. LedgerError for one in memory."""
    if not is_url(storage):
        return Path(storage).absolute()
    url = url_of(storage)
    if url.get_backend_name() != "sqlite":
        return None
    if url.database in (None, "", ":memory:"):
        raise LedgerError(f"{storage} is in memory and would keep nothing; give a file, sqlite:////FOLDER/study.db")
    return Path(str(url.database)).absolute()


def is_missing(storage: str | Path) -> bool:
    """True if a storage is a SQLite file that does not exist."""
    file = sqlite_file(storage)
    return file is not None and not file.is_file()


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keeps Optuna from logging every study that it makes."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def reason_of(error: BaseException) -> str:
    """The innermost cause, on one line: Optuna and SQLAlchemy wrap what the driver said."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200] or type(error).__name__
