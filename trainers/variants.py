"""Trainer variants with other lengths and without deep supervision, named as nnU-Net names its own."""

from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_slicemamba.trainers.final import SliceMambaTrainer
from nnunetv2_slicemamba.trainers.gpu_augment import nnUNetTrainerGPUAugment
from nnunetv2_slicemamba.trainers.inherit import SliceMambaInheritTrainer
from nnunetv2_slicemamba.trainers.settings import SETTINGS, SUPERNET_SETTINGS
from nnunetv2_slicemamba.trainers.supernet import SliceMambaSharedSupernetTrainer, SliceMambaSupernetTrainer


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
