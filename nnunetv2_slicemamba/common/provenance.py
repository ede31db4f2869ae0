"""Provenance of a written result: when it was made, and with which versions."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform


def installed_versions() -> dict[str, str]:
    """Versions of this package and of what decides a result beside it; "not installed" where that is so."""
    names = {"nnunetv2_slicemamba": "nnunetv2-slicemamba", "nnunetv2": "nnunetv2", "torch": "torch"}
    versions = {"python": platform.python_version()}
    for name, distribution in names.items():
        try:
            versions[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def now() -> str:
    """The time, ISO 8601 in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
