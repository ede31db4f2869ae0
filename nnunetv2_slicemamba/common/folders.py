"""nnU-Net's environment variables, and the error for input that cannot be worked with; nothing slow is imported."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
# variables with numbers of processes, and the least that each takes
NUMBERS = {"nnUNet_def_n_proc": 1, "nnUNet_n_proc_DA": 0}


class InputError(ValueError):
    """Input that cannot be worked with; the message names the value, the rule and the remedy."""


def require_folder(variable: str, writable: bool = False) -> Path:
    """The folder that an nnU-Net variable names.

    writable: it must be possible to write there, and a folder that is missing in an existing one is made. Raises
    InputError if the variable is unset or holds what cannot be meant, or the folder is missing or not writable.
    """
    folder = named_folder(variable)
    if folder is None:
        raise InputError(f"{variable} is not set; nnU-Net needs it: export {variable}=/path/to/{variable}")
    check_folder(folder, variable, writable)
    return folder


def check_folder(folder: Path, variable: str, writable: bool = False) -> None:
    """Raises InputError as `require_folder` does for the folder that a variable names, and makes it as that does."""
    if not folder.exists() and writable:
        _make(folder, variable)
    if not folder.is_dir():
        raise InputError(f"{variable}={folder} is not a folder; make it, or point {variable} to the right one")
    if writable and not is_writable(folder):
        raise InputError(f"{variable}={folder} is not writable; change its permissions or name another folder")


def require_apart(*variables: str) -> None:
    """Raises InputError if two of nnU-Net's variables name one folder, which their data would then share."""
    for one, other in itertools.combinations(variables, 2):
        folders = require_folder(one), require_folder(other)
        if folders[0].samefile(folders[1]):
            raise InputError(
                f"{one}={folders[0]} and {other}={folders[1]} are one folder, where the files of both would replace "
                f"one another; give {other} a folder of its own"
            )


def named_folder(variable: str) -> Path | None:
    """The path in an nnU-Net variable, whether or not it is there; None if the variable is unset or empty.

    Raises InputError for a value that a shell was meant to change and did not: one with quotes around it, or with `~`
    in front. nnU-Net would take it for a folder of that name in the folder where the command was called.
    """
    value = os.environ.get(variable)
    if not value:
        return None
    if value.startswith("~"):
        raise InputError(
            f"{variable}={value} begins with ~, which only a shell replaces, and not inside quotes; "
            f"write the whole path: {Path(value).expanduser() if value.startswith('~/') else '/home/...'}"
        )
    if value[0] in "'\"" or value[-1] in "'\"":
        raise InputError(f"{variable}={value} has quotes in its value; remove them: {value.strip(chr(34) + chr(39))}")
    return Path(value)


def check_numbers() -> None:
    """Raises InputError for a variable of nnU-Net's that should hold a number and does not; nnU-Net reads it late."""
    for variable, least in NUMBERS.items():
        value = os.environ.get(variable, str(least))
        digits = value.strip()
        if not (digits.isascii() and digits.isdecimal() and len(digits) < 6 and int(digits) >= least):
            raise InputError(f"{variable}={value} is no whole number from {least} on; correct it, or unset it")


def _make(folder: Path, variable: str) -> None:
    """Makes one missing folder. Raises InputError for a relative path, and where the folder around it is missing."""
    if not folder.is_absolute():
        raise InputError(
            f"{variable}={folder} is not there, seen from {Path.cwd()}; give the whole path, beginning with /"
        )
    if not folder.parent.is_dir():
        raise InputError(
            f"{variable}={folder} cannot be made, as {folder.parent} is not a folder; correct the path, or make "
            "that folder first"
        )
    try:
        folder.mkdir()
    except OSError as error:
        raise InputError(
            f"{variable}={folder} cannot be made ({error.strerror}); name a folder you may write"
        ) from error


def is_writable(folder: Path) -> bool:
    """True if a file can really be made in `folder`: permission bits say nothing on read-only mounts, nor to root."""
    probe = folder / f".slicemamba_{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True
