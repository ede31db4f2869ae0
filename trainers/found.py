"""Trainers by their names: this package's, and those of nnU-Net and others that nnU-Net finds."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
from pathlib import Path

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.library_errors import library_errors
from nnunetv2_slicemamba.common.registration import EXT_TRAINER_VARIABLE
from nnunetv2_slicemamba.trainers.roles import FINAL, INHERIT, OTHER, SUPERNET, families_with, meant
from nnunetv2_slicemamba.trainers.variants import TRAINERS


def trainer_class(name: str) -> type[nnUNetTrainer]:
    """The trainer of this name, looked for where nnUNetv2_train looks. Raises InputError if there is none."""
    if name in TRAINERS:
        return TRAINERS[name]
    folders = os.environ.get(EXT_TRAINER_VARIABLE) or "not set"
    remedy = (
        f"give {families_with(FINAL, INHERIT, SUPERNET, OTHER)}; or one of nnU-Net's such as "
        f"{nnUNetTrainer.__name__}; or one from a folder in {EXT_TRAINER_VARIABLE}, which is {folders}"
    )
    close = meant(name, (*_of_nnunet(), *TRAINERS))
    # it prints where it looks
    with library_errors("nnunetv2", f"{name!r} is no trainer", remedy), contextlib.redirect_stdout(io.StringIO()):
        try:
            found: type[nnUNetTrainer] = recursive_find_trainer_class_by_name(name)
        except RuntimeError as error:  # whose words are about nnU-Net's folders
            raise InputError(f"there is no trainer {name!r}{close}; {remedy}") from error
    return found


def _of_nnunet() -> list[str]:
    """Names of nnU-Net's trainers, read from its files: to import them all takes long."""
    files = Path(inspect.getfile(nnUNetTrainer)).parent.rglob("*.py")
    return [name for file in files for name in re.findall(r"(?m)^class (nnUNetTrainer\w*)", file.read_text("utf-8"))]


def role_of(trainer: type[nnUNetTrainer]) -> str:
    """The role of a trainer, see `roles`; OTHER for one that this package does not know."""
    return str(getattr(trainer, "role", OTHER))
