"""What may a network have that the paper's has not: a convolutional stem, other skips? Settings and their rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SKIPS = ("add", "concatenate")


@dataclass(frozen=True)
class Extras:
    """Options of SliceMambaUNet, see there; the defaults are the paper's network."""

    stem_features: tuple[int, ...] = ()
    n_conv_per_stem_stage: int = 2
    skip: str = "add"
    embedding_skip: bool = False

    def check(self, strides: Sequence[Sequence[int]]) -> None:
        """Raises ValueError naming the first option that is out of range or does not fit strides or another option."""
        if any(width < 1 for width in self.stem_features):
            raise ValueError(f"stem_features {list(self.stem_features)} must all be at least 1")
        if self.n_conv_per_stem_stage < 1:
            raise ValueError(f"n_conv_per_stem_stage is {self.n_conv_per_stem_stage}, it must be at least 1")
        if self.skip not in SKIPS:
            raise ValueError(f"skip is {self.skip!r}; give one of {', '.join(SKIPS)}")
        if self.embedding_skip and self.stem_features:
            raise ValueError(
                f"embedding_skip is for networks with a patch embedding, stem_features {list(self.stem_features)} "
                "replace it and have skips of their own: give one of the two"
            )
        if self.stem_features:
            stem_strides(strides[0], len(self.stem_features))


PAPER = Extras()


def stem_strides(total: Sequence[int], n: int) -> list[tuple[int, ...]]:
    """The n steps from full resolution to the first S3 stage, which multiply to `total` on every axis.

    Every axis's prime factors are spread over the steps, small steps first: 4 in two steps is 2, 2, and 2 is 1, 2, as
    nnU-Net reduces a coarse axis later. Raises ValueError if a step would keep the resolution of all axes.
    """
    per_axis = [_split(size, n) for size in total]
    steps = list(zip(*per_axis, strict=True))
    if n > 1 and any(math.prod(step) == 1 for step in steps):
        most = max(len(_prime_factors(size)) for size in total)
        raise ValueError(
            f"stem_features has {n} entries, but strides[0] {list(total)} can be reached in {most} steps at most: "
            f"give {max(1, most)} or fewer"
        )
    return steps


def output_scales(strides: Sequence[Sequence[int]], n_stem: int = 0) -> list[list[float]]:
    """Resolutions of the outputs under deep supervision, relative to the input's, highest first; per axis.

    strides: per S3 stage, the first from full resolution to stage 0. n_stem: number of convolutional stages.
    """
    first = stem_strides(strides[0], n_stem) if n_stem else [strides[0]]
    steps = [*first, *strides[1:]]
    n_dims = len(strides[0])
    lower = ([1 / math.prod(axis) for axis in zip(*steps[: i + 1], strict=True)] for i in range(len(steps) - 1))
    return [[1.0] * n_dims, *lower]


def _split(size: int, n: int) -> list[int]:
    """n factors of `size`, as alike as its prime factors allow, ascending."""
    steps = [1] * n
    for factor in reversed(_prime_factors(size)):
        steps[steps.index(min(steps))] *= factor
    return sorted(steps)


def _prime_factors(size: int) -> list[int]:
    """Ascending; none for 1."""
    factors, divisor = [], 2
    while size > 1:
        while size % divisor == 0:
            factors.append(divisor)
            size //= divisor
        divisor += 1
    return factors
