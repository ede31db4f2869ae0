"""Warnings of this package, and how its commands show them: each as one line, once."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from nnunetv2_slicemamba.common.console import PlainConsole


class Notice(UserWarning):
    """A warning that was written for the user of a command."""


@contextlib.contextmanager
def shown_as_lines() -> Iterator[None]:
    """Context in which a Notice is a line on standard error, without a place in the source, and no text comes twice."""
    as_before, told = warnings.showwarning, set[str]()

    def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, Notice):
            as_before(message, category, *place, **more)
        elif str(message) not in told:
            told.add(str(message))
            PlainConsole(stderr=True).print(f"warning: {message}")

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = as_before
