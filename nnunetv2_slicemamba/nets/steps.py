"""Steps of a network: what it computes before, between and behind its blocks, so that a pass can go on from a block."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from torch import Tensor, nn

Skips: TypeAlias = tuple[Tensor, ...]
Step: TypeAlias = Callable[[Tensor, Skips], tuple[Tensor, Skips]]  # features and the encoder's skips so far


@dataclass(frozen=True)
class Chain:
    """Several steps as one."""

    steps: tuple[Step, ...]

    def __call__(self, x: Tensor, skips: Skips) -> tuple[Tensor, Skips]:
        for step in self.steps:
            x, skips = step(x, skips)
        return x, skips


def applied(function: Callable[[Tensor], Tensor]) -> Step:
    """The step that applies `function` to the features."""
    return partial(_apply, function)


def keep(x: Tensor, skips: Skips) -> tuple[Tensor, Skips]:
    """The step that makes the features a skip."""
    return x, (*skips, x)


def around_blocks(walk: Iterable[Step | nn.Module]) -> list[Step]:
    """The steps before each block and, last, behind all of them; walk: blocks (modules) and steps, as they follow."""
    found: list[list[Step]] = [[]]
    for item in walk:
        if isinstance(item, nn.Module):
            found.append([])
        else:
            found[-1].append(item)
    return [Chain(tuple(steps)) for steps in found]


def _apply(function: Callable[[Tensor], Tensor], x: Tensor, skips: Skips) -> tuple[Tensor, Skips]:
    return function(x), skips
