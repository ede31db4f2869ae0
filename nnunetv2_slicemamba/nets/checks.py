"""Checks of a network's settings and of its images; errors name the value, the rule and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from torch import Tensor

from nnunetv2_slicemamba.ops.inputs import check_tensor

AXES = {2: "H, W", 3: "D, H, W"}


def check_image(x: Tensor, channels: int, n_dims: int) -> None:
    """Raises ValueError unless x is a tensor of a floating type, (B, channels, *spatial) of n_dims axes with pixels."""
    check_tensor("the image", x)
    if x.dim() != n_dims + 2 or x.shape[1] != channels:
        remedy = f"this network reads {n_dims}D images with {channels} channel{'s'[: channels > 1]}"
        if x.dim() == n_dims + 1 and x.shape[0] == channels:
            remedy = "add the batch axis, x[None]"
        elif x.dim() == n_dims + 2 and x.shape[-1] == channels:
            remedy = "move the channels forward, x.movedim(-1, 1)"
        raise ValueError(f"expected (B, {channels}, {AXES[n_dims]}), got {tuple(x.shape)}: {remedy}")
    if not x.is_floating_point():
        raise ValueError(f"expected an image of a floating type, got {x.dtype}: convert it, x.float()")
    if 0 in x.shape[2:]:
        raise ValueError(f"the image has shape {tuple(x.shape)}, without a single pixel: leave it out")


def check_tokens(x: Tensor, dim: int, n_dims: int) -> None:
    """Raises ValueError unless x has the shape (B, *spatial, dim) of n_dims axes."""
    if x.dim() != n_dims + 2 or x.shape[-1] != dim:
        raise ValueError(
            f"expected (B, {AXES[n_dims]}, {dim}), channels last, got {tuple(x.shape)}: move or reshape axes"
        )


def check_lists(name: str, value: Any, nested: bool = False) -> None:
    """Raises ValueError unless `value` is a sequence, or, if nested, a sequence of sequences."""
    if not _is_sequence(value):
        example = "[[4, 4], [2, 2]]" if nested else "[1, 1]"
        what = "stage and axis" if nested else "stage"
        raise ValueError(f"{name} is {value!r}, it must have an entry per {what}: give a list such as {example}")
    if nested and not all(map(_is_sequence, value)):
        raise ValueError(
            f"{name} {list(value)} must have an entry per spatial axis in every stage: write [2, 2] in place of 2 in "
            "2D, [2, 2, 2] in 3D"
        )


def check_positive(
    name: str, values: Sequence[Any], remedy: str = "correct the one that is not", least: int = 1
) -> None:
    """Raises ValueError unless all of `values`, numbers or sequences of them, are whole and at least `least`."""
    numbers = [number for value in values for number in (value if isinstance(value, Sequence) else (value,))]
    if any(not isinstance(number, Integral) for number in numbers):
        raise ValueError(f"{name} {list(values)} must all be whole numbers: {remedy}")
    if any(number < least for number in numbers):
        raise ValueError(f"{name} {list(values)} must all be at least {least}: {remedy}")


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
