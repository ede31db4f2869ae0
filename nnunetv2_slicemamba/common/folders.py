"""nnU-Net's three folders, and the error for input that cannot be worked with; nothing slow is imported."""

from __future__ import annotations

import os
from pathlib import Path

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


class InputError(ValueError):
    """Input that cannot be worked with; the message names the value, the rule and the remedy."""


def require_folder(variable: str, writable: bool = False) -> Path:
    """The folder that an nnU-Net variable names; InputError if it is unset, missing or, if asked, not writable."""
    value = os.environ.get(variable)
    if not value:
        raise InputError(f"{variable} is not set; nnU-Net needs it: export {variable}=/path/to/{variable}")
    folder = Path(value)
    if not folder.exists() and writable:
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise InputError(
                f"{variable}={folder} cannot be made ({error.strerror}); name a folder you may write"
            ) from error
    if not folder.is_dir():
        raise InputError(f"{variable}={folder} is not a folder; make it, or point {variable} to the right one")
    if writable and not is_writable(folder):
        raise InputError(f"{variable}={folder} is not writable; change its permissions or name another folder")
    return folder


def is_writable(folder: Path) -> bool:
    """True if a file can really be made in `folder`: permission bits say nothing on read-only mounts, nor to root."""
    probe = folder / f".slicemamba_{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True
