"""nnU-Net trainers: the supernet's, the chosen network's, and their variants (every name in `TRAINERS`).

They are imported when one of them is asked for, since nnU-Net's trainer takes seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nnunetv2_slicemamba.trainers.roles import ROLES

if TYPE_CHECKING:
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

# what is not in `variants`, as all trainers are
_ELSEWHERE = {"GPUAugmentation": "gpu_augment", "NonFiniteLossError": "finite"}


def __getattr__(name: str) -> Any:
    if name not in __all__ and name not in ROLES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ELSEWHERE.get(name, 'variants')}"), name)
