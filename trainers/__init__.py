"""nnU-Net trainers: the supernet's, the chosen network's, and their variants (every name in `TRAINERS`)."""

from nnunetv2_slicemamba.trainers.final import SliceMambaTrainer
from nnunetv2_slicemamba.trainers.finite import NonFiniteLossError
from nnunetv2_slicemamba.trainers.gpu_augment import GPUAugmentation, nnUNetTrainerGPUAugment
from nnunetv2_slicemamba.trainers.inherit import SliceMambaInheritTrainer
from nnunetv2_slicemamba.trainers.supernet import SliceMambaSharedSupernetTrainer, SliceMambaSupernetTrainer
from nnunetv2_slicemamba.trainers.variants import TRAINERS

__all__ = [
    "TRAINERS",
    "GPUAugmentation",
    "NonFiniteLossError",
    "SliceMambaInheritTrainer",
    "SliceMambaSharedSupernetTrainer",
    "SliceMambaSupernetTrainer",
    "SliceMambaTrainer",
    "nnUNetTrainerGPUAugment",
]

globals().update(TRAINERS)
