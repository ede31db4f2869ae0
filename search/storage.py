"""Where does Optuna keep a study, and what is said when it cannot?"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

# How long SQLite waits for another process's lock, in each of Optuna's five attempts.
LOCK_SECONDS = 20.0


class LedgerError(RuntimeError):
    """The ledger cannot be opened, read or written."""


def open_storage(storage: str | Path) -> RDBStorage:
    """The storage behind a SQLite file, made with its folder if missing, or behind a URL. Else raises LedgerError."""
    from optuna.exceptions import OptunaError
    from optuna.storages import RDBStorage
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if is_url(storage):
            is_sqlite = make_url(str(storage)).get_backend_name() == "sqlite"
            arguments = {"connect_args": {"timeout": LOCK_SECONDS}} if is_sqlite else None
            return RDBStorage(str(storage), arguments)
        file = Path(storage).absolute()
        file.parent.mkdir(parents=True, exist_ok=True)
        # A URL cannot name every file (SQLAlchemy and Optuna read #, ?, % and {} in it), so we connect ourselves; of
        # the URL only its kind counts.
        return RDBStorage(
            "sqlite:///study.db",
            {"creator": lambda: sqlite3.connect(file, timeout=LOCK_SECONDS, check_same_thread=False)},
        )
    except (OSError, ImportError, OptunaError, SQLAlchemyError, RuntimeError) as error:
        raise LedgerError(
            f"cannot open {storage} as a study ({reason_of(error)}). Is the folder writable, and the file an Optuna "
            "study? Move a damaged file away to begin anew; a URL's driver must be installed"
        ) from error


def location_of(storage: str | Path) -> str:
    """Where a storage is, for people to read: a file's path, or the URL without its password."""
    from sqlalchemy.engine import make_url

    if is_url(storage):
        return make_url(str(storage)).render_as_string(hide_password=True)
    return str(Path(storage).absolute())


def is_url(storage: str | Path) -> bool:
    """Whether a storage is a URL and not a SQLite file."""
    return isinstance(storage, str) and "://" in storage


@contextlib.contextmanager
def closing_on_error(storage: RDBStorage) -> Iterator[None]:
    """Lets go of the storage if the block fails."""
    try:
        yield
    except BaseException:
        storage.engine.dispose()
        raise


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna logs every study that it makes."""
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
