"""Roles of trainers, and the checks that a trainer has the role which a command needs.

The role is an attribute of the class: `supernet` trains the network that a search evaluates, `final` the chosen
network from scratch, `inherit` the chosen network from the supernet's weights; `other` trains any network of nnU-Net's
plans. It stands here too, because to import the classes takes seconds.
"""

from __future__ import annotations

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.trainers.settings import SETTINGS

SUPERNET, FINAL, INHERIT, OTHER = "supernet", "final", "inherit", "other"
# of every trainer by its name; each has a variant for every settings
ROLES: dict[str, str] = {
    f"{name}{suffix}": role
    for name, role in (
        ("SliceMambaTrainer", FINAL),
        ("SliceMambaInheritTrainer", INHERIT),
        ("SliceMambaSupernetTrainer", SUPERNET),
        ("SliceMambaSharedSupernetTrainer", SUPERNET),
        ("nnUNetTrainerGPUAugment", OTHER),
    )
    for suffix in ("", *SETTINGS)
}


def trainers_with(*roles: str) -> list[str]:
    """Names of the trainers with one of `roles`, in the order of ROLES."""
    return [name for name, role in ROLES.items() if role in roles]


def require_supernet_trainer(trainer: str) -> None:
    """Raises InputError listing the supernet trainers unless `trainer` names one."""
    known = trainers_with(SUPERNET)
    if trainer not in known:
        raise InputError(f"{trainer!r} is no supernet trainer; give -tr one of {', '.join(known)}")


def require_final_trainer(trainer: str) -> None:
    """Raises InputError listing the trainers of a chosen network unless `trainer` names one."""
    known = trainers_with(FINAL, INHERIT)
    if trainer not in known:
        raise InputError(f"{trainer!r} is no trainer of a final network; give -tr one of {', '.join(known)}")


def require_trainer_from_scratch(trainer: str) -> None:
    """Raises InputError listing the final trainers that start from scratch unless `trainer` names one."""
    known = trainers_with(FINAL)
    if trainer not in known:
        raise InputError(
            f"{trainer!r} is no final trainer that starts from scratch; give --trainer one of {', '.join(known)}"
        )
