"""Warning of images that hold NaN or infinite values, which a network turns into background without a word."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor


def warn_of_values(x: Tensor) -> bool:
    """Warns if an image on the CPU is not finite, with the number of such values; True if it did.

    Nothing is checked on other devices, where the answer would make the CPU wait, nor while PyTorch records a network.
    """
    if x.device.type != "cpu" or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return False
    bad = x.numel() - int(torch.isfinite(x).sum())
    if bad:
        warnings.warn(
            f"{bad} of {x.numel()} values of the image are NaN or infinite: the logits around them are NaN, and argmax "
            "makes that label 0; give finite values in their place",
            RuntimeWarning,
            stacklevel=4,
        )
    return bad > 0
