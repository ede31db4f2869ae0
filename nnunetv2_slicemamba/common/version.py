"""Version of this package and range of the nnU-Net releases it works with, for the package and for setup.py.

The only place that names them. setup.py runs this file by itself, so it imports the standard library only.
"""

from __future__ import annotations

import importlib.metadata
import re

__version__ = "0.1.0"

NNUNET_OLDEST, NNUNET_BELOW = "2.8", "3"
NNUNET_REQUIREMENT = f"nnunetv2>={NNUNET_OLDEST},<{NNUNET_BELOW}"


def require_nnunet(version: str | None = None) -> None:
    """ImportError unless nnU-Net's version is in the range; nothing if it is not installed.

    version: default that of the installed nnunetv2. Without this check, an older nnU-Net fails somewhere inside, with
    a hook that is not there.
    """
    if version is None:
        try:
            version = importlib.metadata.version("nnunetv2")
        except importlib.metadata.PackageNotFoundError:
            return  # the operation and the networks need none
    if not _numbers(NNUNET_OLDEST) <= _numbers(version) < _numbers(NNUNET_BELOW):
        raise ImportError(
            f"nnU-Net {version} is installed, nnunetv2_slicemamba needs at least {NNUNET_OLDEST} and below "
            f"{NNUNET_BELOW}: pip install '{NNUNET_REQUIREMENT}'"
        )


def _numbers(version: str) -> tuple[int, ...]:
    """Major and minor number of a version."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
