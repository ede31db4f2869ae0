"""Files that a user names for a command to write: nothing else that lies there is written over."""

from __future__ import annotations

from pathlib import Path

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.json_reading import JsonKind

HEAD_BYTES = 4096


def require_output(file: Path, option: str, ending: str, mark: bytes = b"") -> None:
    """Raises InputError unless `file`, the value of `option`, ends so and would replace nothing of another kind.

    mark: bytes in the first 4096 of each file that the command writes. Empty: the ending alone counts.
    """
    if file.suffix.lower() != ending:
        raise InputError(f"{option} {file} must end with {ending}")
    if file.is_dir():
        raise InputError(f"{option} {file} is a folder; name a file to write to")
    if not is_free(file) and not (file.is_file() and mark in head_of(file)):
        raise not_ours(file, option)


def is_free(file: Path) -> bool:
    """True if nothing is lost when `file` is written: nothing is there, or an empty file."""
    return not file.exists() or (file.is_file() and not file.stat().st_size)


def head_of(file: Path) -> bytes:
    """The first bytes of a file."""
    with open(file, "rb") as opened:
        return opened.read(HEAD_BYTES)


def record_of(file: Path) -> Path:
    """FILE.json, the record beside a file that a command wrote."""
    return file.with_name(f"{file.name}.json")


def require_record(file: Path, kind: JsonKind) -> None:
    """Raises InputError if writing the record of `file`, the value of -o, would replace what is no such record."""
    if not is_free(record_of(file)) and not kind.is_readable(record_of(file)):
        raise not_ours(record_of(file), "-o")


def not_ours(file: Path, option: str) -> InputError:
    """The error of a file that a command would write over, and has not written."""
    return InputError(
        f"{option} {file} is there already and was not written by this command: it would be lost. Name another file, "
        "or move that one away"
    )
