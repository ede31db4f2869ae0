"""Checkpoints of nnU-Net's trainings, read as data: nothing that they name is run.

nnU-Net writes its plans, logs and NumPy's numbers into them, and reads them with Python's pickle, which runs what a
file says. Everything here goes through PyTorch's weights-only loader. PyTorch is imported when it is needed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.safe_reading import names_in, read_checkpoint, safe_globals

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = "network_weights"
# PyTorch's own switches of torch.load, see its documentation of environment variables
FORCE_SAFE, FORCE_UNSAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_TRUE = ("1", "y", "yes", "true")


class CheckpointError(InputError):
    """A checkpoint of a training cannot be used; the message names the file, what is wrong, and the remedy."""


def read_training(path: Path, remedy: str, tensors: bool = True) -> dict[str, Any]:
    """Content of a checkpoint that nnU-Net's trainers wrote, on the CPU; `network_weights` maps names to tensors.

    remedy: what to do about a file that cannot be used. tensors: False maps the file into memory, so that hundreds of
    megabytes of weights stay unread where their values do not matter. Otherwise every checksum is compared, and weights
    that are NaN or infinite are refused. Raises CheckpointError.
    """
    untrusted = f"nnU-Net writes no such thing. Find out who wrote it; {remedy}"
    try:
        content = read_checkpoint(path, remedy, untrusted, tensors=tensors)
    except InputError as error:
        raise CheckpointError(str(error)) from error.__cause__
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a checkpoint of nnU-Net; {remedy}")
    weights = content.get(WEIGHTS)
    if not isinstance(weights, Mapping):
        raise CheckpointError(
            f"{path} is no checkpoint of nnU-Net: it has no {WEIGHTS}, but {names_in(content)}; {remedy}"
        )
    _check_weights(path, weights, remedy)
    if tensors and (problem := non_finite(weights)):
        raise CheckpointError(f"{path} cannot be used: {problem}; {remedy}")
    return dict(content)


def load_network(network: nn.Module, path: Path, remedy: str) -> None:
    """Loads a network's weights from a checkpoint of nnU-Net's trainers.

    Raises CheckpointError as read_training does, and for weights of another network.
    """
    weights = read_training(path, remedy)[WEIGHTS]
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} is of another network ({reason[:600]}); {remedy}") from None


def non_finite(weights: Mapping[str, Tensor]) -> str:
    """What is not finite in a state dict, in words; "" if all is."""
    bad = [name for name, value in weights.items() if not value.isfinite().all()]
    return f"{len(bad)} of its {len(weights)} tensors hold NaN or infinity, the first is {bad[0]}" if bad else ""


def _check_weights(path: Path, weights: Mapping[Any, Any], remedy: str) -> None:
    import torch

    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"{path} is damaged: its {WEIGHTS} hold a {type(value).__name__} where tensors belong; {remedy}"
            )
        if value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise CheckpointError(f"{path} is damaged: its tensor {name} is not a plain one; {remedy}")
        # one number can stand for terabytes of a tensor, which any operation would then write out
        there = value.untyped_storage().nbytes()
        if value.numel() * value.element_size() > there:
            raise CheckpointError(
                f"{path} is damaged: its tensor {name} has {value.numel()} numbers in {there} bytes; {remedy}"
            )


def may_run_code() -> bool:
    """True if the user switched PyTorch's weights-only loading off, with TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD."""
    return os.environ.get(FORCE_UNSAFE, "0").lower() in _TRUE


def load_safely_from_now_on() -> None:
    """From now on torch.load runs no code in this process, also where nnU-Net asks it to.

    The names that nnU-Net's checkpoints need are allowed. TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 leaves all as it is.
    """
    from torch import serialization

    if not may_run_code():
        os.environ[FORCE_SAFE] = "1"
        serialization.add_safe_globals(safe_globals())
