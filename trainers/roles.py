"""Roles of trainers, and the checks that a trainer has the role which a command needs.

The role is an attribute of the class: `supernet` trains the network that a search evaluates, `final` the chosen
network from scratch, `inherit` the chosen network from the supernet's weights; `other` trains any network of nnU-Net's
plans. It stands here too, because to import the classes takes seconds.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.trainers.settings import SETTINGS

SUPERNET, FINAL, INHERIT, OTHER = "supernet", "final", "inherit", "other"
# of the trainers without an ending; each has a variant for every settings
_FAMILIES = {
    "SliceMambaTrainer": FINAL,
    "SliceMambaInheritTrainer": INHERIT,
    "SliceMambaSupernetTrainer": SUPERNET,
    "SliceMambaSharedSupernetTrainer": SUPERNET,
    "nnUNetTrainerGPUAugment": OTHER,
}
# of every trainer by its name
ROLES: dict[str, str] = {f"{name}{suffix}": role for name, role in _FAMILIES.items() for suffix in ("", *SETTINGS)}


def trainers_with(*roles: str) -> list[str]:
    """Names of the trainers with one of `roles`, in the order of ROLES."""
    return [name for name, role in ROLES.items() if role in roles]


def families_with(*roles: str) -> str:
    """The trainers with one of `roles` for people to read: their names without endings, and the endings."""
    names = [name for name, role in _FAMILIES.items() if role in roles]
    lengths = {suffix: found[1] for suffix in SETTINGS if (found := re.fullmatch(r"_(\d+)epochs", suffix))}
    endings = [*(suffix for suffix in SETTINGS if suffix not in lengths), "_Nepochs"]
    return f"{_one_of(names)}, as it is or with the ending {_one_of(endings)} (N: {', '.join(lengths.values())})"


def meant(name: str, known: Sequence[str]) -> str:
    """A question that names those of `known` that are spelled nearly as `name`; "" if there are none."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.8)
    return f" (did you mean {_one_of(close)}?)" if close else ""


def require_supernet_trainer(trainer: str, option: str = "-tr") -> None:
    """Raises InputError naming the supernet trainers unless `trainer` names one."""
    _require(trainer, "supernet trainer", option, SUPERNET)


def require_final_trainer(trainer: str, option: str = "-tr") -> None:
    """Raises InputError naming the trainers of a chosen network unless `trainer` names one."""
    _require(trainer, "trainer of a final network", option, FINAL, INHERIT)


def require_trainer_from_scratch(trainer: str) -> None:
    """Raises InputError naming the final trainers that start from scratch unless `trainer` names one."""
    _require(trainer, "final trainer that starts from scratch", "--trainer", FINAL)


def _one_of(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def _require(trainer: str, what: str, option: str, *roles: str) -> None:
    known = trainers_with(*roles)
    if trainer not in known:
        raise InputError(f"{trainer!r} is no {what}{meant(trainer, known)}; give {option} {families_with(*roles)}")
