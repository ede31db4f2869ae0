"""Files with a JSON object a line, which grow as work is done: what cannot be read of one is left out, and told."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from nnunetv2_slicemamba.common.json_reading import loads
from nnunetv2_slicemamba.common.json_shape import Shape, mismatch
from nnunetv2_slicemamba.common.verbosity import SliceMambaWarning

T = TypeVar("T")


def entries_in(content: bytes, shape: Shape, first: int = 1) -> tuple[list[tuple[int, Any]], list[int]]:
    """(number, value) of every line of JSON that has the shape, and the numbers of the lines that have not.

    content: the lines; empty ones count, and hold nothing. first: number of the first line. Half a line, zeros, bytes
    that are no UTF-8, values nested too deeply: whatever a kill, a full disk or a bad sector leaves costs the lines
    that it is in, and no other.
    """
    found, damaged = [], []
    for number, line in enumerate(content.split(b"\n"), first):
        if not line.strip():
            continue
        try:
            value = loads(line)
        except ValueError:
            damaged.append(number)
            continue
        if mismatch(value, shape) is None:
            found.append((number, value))
        else:
            damaged.append(number)
    return found, damaged


def read_json_lines(file: Path, shape: Shape, make: Callable[[Any], T] = lambda value: value) -> list[T]:
    """What `make` makes of every line of a file that has the shape, [] if there is no file.

    Lines that have not, or that `make` refuses with ValueError, are left out with one warning that names them all.
    """
    if not file.is_file():
        return []
    entries, damaged = entries_in(file.read_bytes(), shape)
    made = []
    for number, value in entries:
        try:
            made.append(make(value))
        except ValueError:
            damaged.append(number)
    warn_of_damage({file: sorted(damaged)})
    return made


def warn_of_damage(damaged: dict[Path, list[int]]) -> None:
    """One warning that names the lines of files that were left out; none if there are none."""
    told = told_damage(damaged)
    if told:
        warnings.warn(f"what cannot be read is left out: {told}", SliceMambaWarning, stacklevel=3)


def told_damage(damaged: dict[Path, list[int]]) -> str:
    """Damaged lines in words, "FILE, line 3; FILE, line 5"; "" for none."""
    return "; ".join(f"{file}, line {line}" for file, lines in damaged.items() for line in lines)
