"""Numbers that a launcher such as torchrun gives each process of a job, in environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.names import is_number

MOST_PROCESSES, MOST_PORT = 2**20, 2**16


def launcher_number(
    name: str,
    default: int | None = None,
    least: int = 0,
    below: int = MOST_PROCESSES,
    environ: Mapping[str, str] = os.environ,
) -> int:
    """The number in a variable. default: where it is unset; None if the launcher has to set it.

    Raises InputError for what is no whole number from `least` on and below `below`, and for a variable that is missing.
    """
    value = environ.get(name)
    if value is None and default is not None:
        return default
    if value is None or not (is_number(value) and len(value) < 10 and least <= int(value) < below):
        is_what = "is not set" if value is None else f"is {value!r}"
        raise InputError(
            f"{name} {is_what}, where WORLD_SIZE={environ.get('WORLD_SIZE', '')} announces a job of several processes: "
            f"it must be a whole number from {least} on and below {below}. Start the processes with torchrun, or unset "
            "WORLD_SIZE for a single one"
        )
    return int(value)
