"""Resolutions inside a network: the steps of a convolutional stem, and the scales of the outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence


def stem_strides(total: Sequence[int], n: int) -> list[tuple[int, ...]]:
    """The n strides from full resolution to the first S3 stage, which multiply to `total` on every axis.

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


def reductions(strides: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Stride of every stage from full resolution, per axis."""
    return [tuple(math.prod(axis) for axis in zip(*strides[: i + 1], strict=True)) for i in range(len(strides))]


def _split(size: int, n: int) -> list[int]:
    """Factors of `size`, n of them, as alike as its prime factors allow, ascending."""
    steps = [1] * n
    for factor in reversed(_prime_factors(size)):
        steps[steps.index(min(steps))] *= factor
    return sorted(steps)


def _prime_factors(size: int) -> list[int]:
    """Prime factors of `size`, ascending; none for 1."""
    factors, divisor = [], 2
    while size > 1:
        while size % divisor == 0:
            factors.append(divisor)
            size //= divisor
        divisor += 1
    return factors
