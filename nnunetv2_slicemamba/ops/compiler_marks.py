"""Calls that carry the marks of torch.compile; importing this module imports PyTorch's compiler (see ops/compiling)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

R = TypeVar("R")


@torch.compiler.assume_constant_result
def constant_result(function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    """function(*args, **kwargs), computed once for a compiled network."""
    return function(*args, **kwargs)


@torch.compiler.disable
def as_it_is(function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    """function(*args, **kwargs), outside the compiled network."""
    return function(*args, **kwargs)
