"""Optuna's storage of a study: opened, named for people, and its errors told with their remedy."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from sqlalchemy.engine import URL

# How long SQLite waits for another process's lock, in each of Optuna's five attempts.
LOCK_SECONDS = 20.0
# Seconds before a server that is away is asked again: they double up to the longest.
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
# Seconds for which a search's beginning waits for it.
PATIENCE_AT_START = 10.0

T = TypeVar("T")


class LedgerError(RuntimeError):
    """The ledger cannot be opened, read or written."""


class StorageAwayError(LedgerError):
    """The server of the storage does not answer now; it may do so again."""


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
            kind = StorageAwayError if _is_away(error) else LedgerError
            raise kind(f"cannot open {where} as a study ({reason_of(error)}). {advice(error)}") from error
        try:
            yield database
        except (StorageInternalError, SQLAlchemyError) as error:
            kind = StorageAwayError if _is_away(error) else LedgerError
            raise kind(
                f"the study in {where} cannot be used ({reason_of(error)}). All that is in it is kept. {advice(error)}"
            ) from error
        finally:
            database.remove_session()
            database.engine.dispose()


def persistently(action: Callable[[], T], patience: float, say: Callable[[str], None] = lambda text: None) -> T:
    """What `action` returns; done again with growing waits as long as its server is away, at most `patience` seconds.

    say: is told of each wait. Raises StorageAwayError when the time is over, and whatever else `action` raises.
    """
    ends, wait = time.monotonic() + patience, FIRST_WAIT
    while True:
        try:
            return action()
        except StorageAwayError as error:
            left = ends - time.monotonic()
            if left <= 0:
                raise
            say(f"{error}. Tried again for {patience:.0f} s")
        time.sleep(min(wait, left))
        wait = min(2 * wait, LONGEST_WAIT)


def _is_away(error: BaseException) -> bool:
    """True for the errors of a server that was stopped, is being started or cannot be reached, which pass."""
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    raised = next((one for one in chain if isinstance(one, DBAPIError)), None)
    if raised is None or "sqlite3" in type(raised.orig).__module__:
        return False
    text = str(raised.orig)
    # a server that says no, for a wrong password or a missing database, says so again
    if "denied" in text or ("FATAL" in text and not any(words in text for words in _PASSING)):
        return False
    return raised.connection_invalidated or isinstance(raised, (OperationalError, InterfaceError))


_PASSING = ("starting up", "shutting down", "terminating connection", "recovery mode", "too many")


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
