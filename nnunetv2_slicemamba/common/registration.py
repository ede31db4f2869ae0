"""Registration of our classes with nnU-Net: a folder in nnUNet_extTrainer, or shims in nnU-Net's own folders."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from nnunetv2_slicemamba.common.version import NNUNET_REQUIREMENT

EXT_TRAINER_VARIABLE = "nnUNet_extTrainer"
EXT_TRAINER_FOLDER = Path(__file__).absolute().parents[1] / "ext_trainer"  # holds the trainers' shim and nothing else
OUR_FOLDER_ALONE = 'export nnUNet_extTrainer="$(slicemamba trainer-path)"'
MARKER = "# Written by 'slicemamba register'; 'slicemamba register --undo' removes it."

# nnU-Net imports every module of a folder that it looks through, and one that cannot be imported ends the look-up of
# every class, ours or not. A shim therefore imports nothing until one of our names is asked for, and knows none once
# the package is gone.
SHIM = '''{marker}
"""SliceMamba's {what}, for nnU-Net's look-up by name; they live in the package nnunetv2_slicemamba."""

from importlib.util import find_spec


def __getattr__(name):
    if name.startswith(("SliceMamba", "nnUNetTrainerGPUAugment")) and find_spec("nnunetv2_slicemamba") is not None:
        from {module} import {table}

        for found in {table}.values():
            if found.__name__ == name:
                return found
    raise AttributeError(f"module {{__name__!r}} has no attribute {{name!r}}")
'''


class RegistrationError(RuntimeError):
    """Shims that cannot be written or removed."""


@dataclass(frozen=True)
class Shim:
    """One module added to nnU-Net: `file` below the folder of nnunetv2, passing on the classes in module.table."""

    what: str
    file: str
    module: str
    table: str

    @property
    def text(self) -> str:
        """Source code of the shim."""
        return SHIM.format(marker=MARKER, what=self.what, module=self.module, table=self.table)


SHIMS = (
    Shim(
        "trainers",
        "training/nnUNetTrainer/variants/slicemamba_trainers.py",
        "nnunetv2_slicemamba.trainers",
        "TRAINERS",
    ),
    Shim(
        "planners",
        "experiment_planning/experiment_planners/slicemamba_planners.py",
        "nnunetv2_slicemamba.planning.planner",
        "BY_NAME",
    ),
)


def nnunet_folder() -> Path:
    """The folder of the nnunetv2 that Python imports; RegistrationError if there is none."""
    if find_spec("nnunetv2") is None:
        raise RegistrationError(
            f"nnunetv2 is not installed in this Python environment: pip install '{NNUNET_REQUIREMENT}'"
        )
    import nnunetv2

    # not site-packages: nnunetv2 may be an editable install, whose folder is elsewhere
    return Path(nnunetv2.__path__[0])


def is_ours(file: Path) -> bool:
    """True if `register` wrote the file."""
    try:
        return file.read_text(encoding="utf-8").startswith(MARKER)
    except (OSError, UnicodeDecodeError):
        return False


def registered_shims(nnunet: Path) -> list[Path]:
    """Paths of the shims that are there now."""
    return [nnunet / shim.file for shim in SHIMS if is_ours(nnunet / shim.file)]


def other_installations(nnunet: Path) -> Iterator[tuple[str, str, str]]:
    """Leftovers of another installation or version of this package that nnU-Net finds: (name, fault, remedy)."""
    now = {nnunet / shim.file: shim.text for shim in SHIMS}
    for file in registered_shims(nnunet):
        if file.read_text(encoding="utf-8") != now[file]:
            yield "registered file", f"{file} was written by another version of SliceMamba", "slicemamba register"
    shim_name = next(file.name for file in EXT_TRAINER_FOLDER.glob("*.py"))
    for folder in filter(None, os.environ.get(EXT_TRAINER_VARIABLE, "").split(os.pathsep)):
        if (Path(folder) / shim_name).is_file() and Path(folder).resolve() != EXT_TRAINER_FOLDER.resolve():
            yield EXT_TRAINER_VARIABLE, f"{folder} belongs to another installation", OUR_FOLDER_ALONE


def register(nnunet: Path) -> list[Path]:
    """Writes the shims into nnunetv2's folder and returns their paths; both or none.

    Again where they are already there. Raises RegistrationError where a folder cannot be written to or a file of
    that name is somebody else's.
    """
    targets = {nnunet / shim.file: shim.text for shim in SHIMS}
    for target in targets:
        if target.exists() and not is_ours(target):
            raise RegistrationError(
                f"{target} exists and was not written by 'slicemamba register'; move it away, or use "
                f"nnUNet_extTrainer instead of registering: {export_line()}"
            )
    # not ending in .py: nnU-Net must not import a file that is being written
    written = {target: target.with_name(f".{target.stem}.{os.getpid()}.tmp") for target in targets}
    try:
        for target, temporary in written.items():
            with _explained(target.parent):
                temporary.write_text(targets[target], encoding="utf-8")
        for target, temporary in written.items():
            with _explained(target.parent):
                os.replace(temporary, target)
    finally:
        for temporary in written.values():
            with contextlib.suppress(OSError):
                temporary.unlink()
    return list(targets)


def unregister(nnunet: Path) -> list[Path]:
    """Removes the shims that `register` wrote, and nothing else; returns what it removed."""
    ours = registered_shims(nnunet)
    for file in ours:
        with _explained(file.parent):
            file.unlink(missing_ok=True)
    return ours


def is_found_by_nnunet() -> bool:
    """True if nnU-Net's commands, typed in this shell, find our trainers: registered, or in nnUNet_extTrainer."""
    folders = filter(None, os.environ.get(EXT_TRAINER_VARIABLE, "").split(os.pathsep))
    named = any(Path(folder).resolve() == EXT_TRAINER_FOLDER.resolve() for folder in folders)
    return named or is_ours(nnunet_folder() / SHIMS[0].file)


def export_line() -> str:
    """The shell line with which nnU-Net finds the trainers without registering; keeps folders that are set already."""
    others = f"$nnUNet_extTrainer{os.pathsep}" if os.environ.get(EXT_TRAINER_VARIABLE, "").strip() else ""
    return f'export nnUNet_extTrainer="{others}$(slicemamba trainer-path)"'


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise RegistrationError(
            f"{folder} does not exist, this nnunetv2 is laid out differently; let nnU-Net find the trainers through "
            f"nnUNet_extTrainer instead: {export_line()}"
        ) from error
    except OSError as error:
        raise RegistrationError(
            f"{folder} cannot be written to ({error.strerror}); run this as the owner of the Python environment, or "
            f"let nnU-Net find the trainers through nnUNet_extTrainer instead: {export_line()}"
        ) from error
