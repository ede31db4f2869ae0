"""Functions that torch.compile does not look into, marked without importing torch.compile itself.

PyTorch's own marks import its compiler, which takes longer than PyTorch and which most programs never use. The marks
here are looked up while something is compiled: import statements, unlike importlib, can be traced.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def constant_while_compiling(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, whose result torch.compile takes for a constant (torch.compiler.assume_constant_result)."""

    @functools.wraps(function)
    def constant(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            from nnunetv2_slicemamba.ops.compiler_marks import constant_result

            return constant_result(function, *args, **kwargs)
        return function(*args, **kwargs)

    return constant


def not_compiled(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, which runs as it is in the middle of a compiled network (torch.compiler.disable)."""

    @functools.wraps(function)
    def uncompiled(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            from nnunetv2_slicemamba.ops.compiler_marks import as_it_is

            return as_it_is(function, *args, **kwargs)
        return function(*args, **kwargs)

    return uncompiled
