"""Is the installed nnU-Net one that this package works with?"""

from __future__ import annotations

import importlib.metadata
import re

OLDEST, BELOW = (2, 8), (3,)


def require_nnunet(version: str | None = None) -> None:
    """ImportError unless nnU-Net's version is at least 2.8 and below 3; nothing if it is not installed.

    version: default that of the installed nnunetv2. Without this check, an older nnU-Net fails somewhere inside, with
    a hook that is not there.
    """
    if version is None:
        try:
            version = importlib.metadata.version("nnunetv2")
        except importlib.metadata.PackageNotFoundError:
            return  # the operation and the networks need none
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if not OLDEST <= numbers < BELOW:
        raise ImportError(
            f"nnU-Net {version} is installed, nnunetv2_slicemamba needs at least 2.8 and below 3: "
            "pip install 'nnunetv2>=2.8,<3'"
        )
