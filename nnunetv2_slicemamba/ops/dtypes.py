"""Types in which the recurrence and whole blocks compute."""

from __future__ import annotations

import torch

from nnunetv2_slicemamba.ops.compiling import constant_while_compiling


def recurrence_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type of the recurrence for tokens of type `dtype`: float64 for float64, float32 for everything else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def block_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type that a block computes in where autocast asks for `dtype`: bfloat16 instead of float16.

    A scan's result is a product of three things that grow while a network learns, and is normalised only afterwards:
    after a few epochs it reaches 1e7, with a gradient as small as that is large. float16 holds neither.
    """
    return torch.bfloat16 if dtype == torch.float16 else dtype


@constant_while_compiling
def has_autocast(device_type: str) -> bool:
    """True if PyTorch has autocast for devices of this type.

    A constant while compiling: at PyTorch 2.11 the question itself would break the graph of every block.
    """
    return torch.amp.is_autocast_available(device_type)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Autocast's type on `device`, None where autocast is off."""
    if not has_autocast(device.type) or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)
