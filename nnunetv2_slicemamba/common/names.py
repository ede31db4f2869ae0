"""Names of plans, trainers and networks' classes, pairs of them, numbers in names; nothing slow is imported."""

from __future__ import annotations

import re

from nnunetv2_slicemamba.common.folders import InputError

DEFAULT_PLANS = "nnUNetSliceMambaPlans"
DEFAULT_SUPERNET_TRAINER = "SliceMambaSupernetTrainer"
# set for commands that another command of ours runs: what comes next is that one's to say
WITHIN_VARIABLE = "SLICEMAMBA_WITHIN"
DEFAULT_TRAINER = "SliceMambaTrainer"
# entry of our plans that holds the options they were planned with, as far as nothing else in them says so
OPTIONS_IN_PLANS = "slicemamba_options"

# classes of networks in plans, by the last part of their name: where each lies, and where its supernet does
NETWORK_CLASSES = {
    "SliceMambaUNet": (
        "nnunetv2_slicemamba.nets.unet.SliceMambaUNet",
        "nnunetv2_slicemamba.nets.supernet.SliceMambaSupernet",
    ),
    "SliceMambaResidualUNet": (
        "nnunetv2_slicemamba.nets.residual.SliceMambaResidualUNet",
        "nnunetv2_slicemamba.nets.residual.SliceMambaResidualSupernet",
    ),
}

# files that nnU-Net keeps beside the plans
NO_PLANS = ("dataset", "dataset_fingerprint", "splits_final")
_SUPERNET_TRAINER = re.compile(r"SliceMamba\w*SupernetTrainer\w*")


def is_number(text: str) -> bool:
    """True for one or more of the digits 0 to 9. `str.isdigit` also takes `²` and the digits of other scripts."""
    return text.isascii() and text.isdecimal()


def fold_order(fold: str) -> tuple[bool, int, str]:
    """Key that sorts folds' names: numbers by their value, then others, such as "all"."""
    return not is_number(fold), int(fold) if is_number(fold) else 0, fold


def names_supernet_trainer(name: str) -> bool:
    """True if a result folder's trainer trained a supernet; for a trainer class, ask its `role`."""
    return _SUPERNET_TRAINER.fullmatch(name) is not None


def class_name(planned: str) -> str:
    """Name of a class without its module, as NETWORK_CLASSES has it; planned: network_class_name in the plans."""
    return planned.rpartition(".")[-1]


def check_plans_name(name: str) -> None:
    """Raises InputError unless plans can have this name: it names a file, and a part of nnU-Net's result folders."""
    rule = None
    if name in NO_PLANS:
        rule = f"nnU-Net keeps other things in {name}.json"
    elif "__" in name or name.startswith("_") or name.endswith("_"):
        rule = "nnU-Net splits the names of its result folders at '__'"
    elif not name or name.startswith((".", "-")) or set(name) & set("/\\") or not name.isprintable():
        rule = "they are the name of a file, without folder, and do not begin with '.' or '-'"
    if rule:
        raise InputError(f"plans cannot be named {name!r}: {rule}; give letters and digits, e.g. {DEFAULT_PLANS}")


def final_trainer_name(supernet_trainer: str) -> str:
    """Name of the final trainer that goes with a supernet trainer: SliceMambaTrainer with the same suffix."""
    return supernet_trainer.replace("SharedSupernet", "").replace("Supernet", "")
