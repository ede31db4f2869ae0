"""Trainers of a run, checked before anything is planned."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.names import DEFAULT_SUPERNET_TRAINER


@dataclass(frozen=True)
class ChosenTrainers:
    """Trainers of a run.

    final, supernet: class names. sliced: whether `final` trains a network with a slicing; False for a trainer of
    nnU-Net or of another project. inherits: whether `final` begins with the supernet's weights.
    """

    final: str
    supernet: str
    sliced: bool
    inherits: bool


def chosen_trainers(trainer: str, supernet_trainer: str | None) -> ChosenTrainers:
    """The trainers of a run with these options; the supernet's is the one with the final trainer's length by default.

    Raises InputError for a trainer that nnU-Net does not find, and for one in the other's place.
    """
    from nnunetv2_slicemamba.trainers import TRAINERS  # which loads PyTorch
    from nnunetv2_slicemamba.trainers.found import role_of, trainer_class
    from nnunetv2_slicemamba.trainers.roles import FINAL, INHERIT, SUPERNET

    alike = re.sub("^SliceMamba(Inherit)?Trainer", DEFAULT_SUPERNET_TRAINER, trainer)
    supernet = supernet_trainer or (alike if alike in TRAINERS and alike != trainer else DEFAULT_SUPERNET_TRAINER)
    role = role_of(trainer_class(trainer))
    if role == SUPERNET or role_of(trainer_class(supernet)) != SUPERNET:
        raise InputError(f"-tr {trainer} must be a final trainer and --supernet-trainer {supernet} a supernet's")
    return ChosenTrainers(trainer, supernet, role in (FINAL, INHERIT), role == INHERIT)
