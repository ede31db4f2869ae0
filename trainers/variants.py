"""Trainer variants with other lengths and without deep supervision, named as nnU-Net names its own."""

from __future__ import annotations

from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_slicemamba.trainers.final import SliceMambaTrainer
from nnunetv2_slicemamba.trainers.gpu_augment import nnUNetTrainerGPUAugment
from nnunetv2_slicemamba.trainers.inherit import SliceMambaInheritTrainer
from nnunetv2_slicemamba.trainers.supernet import SliceMambaSharedSupernetTrainer, SliceMambaSupernetTrainer

SETTINGS: dict[str, dict[str, Any]] = {
    "NoDeepSupervision": {"deep_supervision": False},
    **{f"_{n}epochs": {"epochs": n} for n in (5, 10, 20, 50, 100, 250, 500)},
    # one short epoch, for tests of a pipeline
    "_1epoch": {"epochs": 1, "iterations_per_epoch": 20, "validation_iterations": 2},
    # minutes on a CPU, for `slicemamba demo`
    "_demo": {"epochs": 6, "iterations_per_epoch": 50, "validation_iterations": 4},
    # the hippocampus fills a small part of its crops: it is found after some 500 iterations
    "_demo3d": {"epochs": 16, "iterations_per_epoch": 50, "validation_iterations": 4},
}
SUPERNET_SETTINGS = {
    **SETTINGS,
    "_demo": {**SETTINGS["_demo"], "epochs": 3},
    "_demo3d": {**SETTINGS["_demo3d"], "epochs": 12},
}


def variant(trainer: type[nnUNetTrainer], suffix: str) -> type[nnUNetTrainer]:
    """The trainer class with the suffix's settings, importable from this module under its name."""
    settings = SUPERNET_SETTINGS if issubclass(trainer, SliceMambaSupernetTrainer) else SETTINGS
    changed = ", ".join(f"{key} = {value}" for key, value in settings[suffix].items())
    attributes = {**settings[suffix], "__module__": __name__, "__doc__": f"{trainer.__name__} with {changed}."}
    return type(f"{trainer.__name__}{suffix}", (trainer,), attributes)


TRAINERS: dict[str, type[nnUNetTrainer]] = {
    cls.__name__: cls
    for base in (
        SliceMambaTrainer,
        SliceMambaInheritTrainer,
        SliceMambaSupernetTrainer,
        SliceMambaSharedSupernetTrainer,
        nnUNetTrainerGPUAugment,
    )
    for cls in (base, *(variant(base, suffix) for suffix in SETTINGS))
}
# nnU-Net finds trainers as attributes of modules
globals().update(TRAINERS)
