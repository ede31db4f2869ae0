"""Scan orders: the orders in which a slicing visits the tokens of an image (Fan et al. 2025, BSS)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import torch
from torch import Tensor


def _axis_values(values: Sequence[int], what: str, remedy: str) -> tuple[int, ...]:
    """The values as a tuple of ints >= 1; ValueError otherwise."""
    try:
        whole = tuple(int(v) for v in values)
    except (TypeError, ValueError):
        raise ValueError(f"{what} is {values!r}, it must be one whole number per spatial axis; {remedy}") from None
    if any(w != v for w, v in zip(whole, values, strict=True)):
        raise ValueError(f"{what} is {tuple(values)}, every entry must be a whole number; {remedy}")
    if any(w < 1 for w in whole):
        raise ValueError(f"{what} is {whole}, every entry must be at least 1; {remedy}")
    return whole


def check_axes(sizes: Sequence[int], thickness: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes and thickness as tuples of ints, one entry per spatial axis each.

    Raises ValueError for entries below 1, entries that are no whole numbers, no axis at all, and lengths that differ.
    """
    sizes = _axis_values(sizes, "sizes", "give the number of tokens along each spatial axis, for example (56, 56)")
    thickness = _axis_values(thickness, "thickness", "give one band thickness per spatial axis, for example (2, 4)")
    if len(sizes) != len(thickness):
        raise ValueError(
            f"thickness {thickness} has {len(thickness)} entries and sizes {sizes} has {len(sizes)}, they must have "
            "one per spatial axis each; give a thickness with as many entries as the image has axes"
        )
    if not sizes:
        raise ValueError("sizes is empty, there must be at least one spatial axis; give for example (56, 56)")
    return sizes, thickness


def band_order(sizes: tuple[int, ...], thickness: tuple[int, ...], travel: int) -> Tensor:
    """Raster indices in the order in which bands along one axis are read.

    sizes: tokens per spatial axis. thickness: band thickness per axis, the travel axis's unused.
    Returns (L,) int64, a permutation of range(L), L = prod(sizes); sizes need not be divisible.
    Raises ValueError if a thickness is below 1. After Fan et al. 2025 (BSS).
    """
    sizes, thickness = check_axes(sizes, thickness)
    travel = range(len(sizes))[travel]
    index = torch.arange(prod(sizes))
    coordinates: list[Tensor] = []
    for size in reversed(sizes):
        coordinates.insert(0, index % size)
        index = index // size
    across = [axis for axis in range(len(sizes)) if axis != travel]
    # A mixed-radix number whose digits, slowest first, are: band, position along the band, place in the cross section.
    rank = torch.zeros_like(index)
    for axis in across:
        rank = rank * -(-sizes[axis] // thickness[axis]) + coordinates[axis] // thickness[axis]
    rank = rank * sizes[travel] + coordinates[travel]
    for axis in across:
        rank = rank * thickness[axis] + coordinates[axis] % thickness[axis]
    return rank.argsort()


def scan_orders(sizes: Sequence[int], thickness: Sequence[int]) -> Tensor:
    """The K = 2n orders in which the tokens of an image with n spatial axes are scanned.

    sizes: tokens per spatial axis. thickness: band thickness per spatial axis; it need not divide the size, the last
    band is then thinner. Returns (2n, L) int64, L = prod(sizes): row k lists raster indices in visiting order. Travel
    axes come last axis first, each followed by its reverse: (w, w reversed, h, h reversed[, d, d reversed]).
    Raises ValueError for sizes or thicknesses below 1 and for lengths that differ. After Fan et al. 2025 (BSS).
    """
    return cached_orders(*check_axes(sizes, thickness), torch.device("cpu")).clone()


@lru_cache(maxsize=128)
def cached_orders(sizes: tuple[int, ...], thickness: tuple[int, ...], device: torch.device) -> Tensor:
    """Scan orders (2n, L) on `device`, computed once; shared between callers, so never write to them.

    A thickness with a 0 has the two orders along that axis alone: (2, L).
    """
    # nnU-Net predicts under inference_mode; an order first made there could not be used in training afterwards.
    with torch.inference_mode(False):
        rows = []
        travels = [thickness.index(0)] if 0 in thickness else reversed(range(len(sizes)))
        for travel in travels:
            order = band_order(sizes, tuple(part or 1 for part in thickness), travel)
            rows += [order, order.flip(0)]
        return torch.stack(rows).to(device)


@lru_cache(maxsize=128)
def cached_inverse_orders(sizes: tuple[int, ...], thickness: tuple[int, ...], device: torch.device) -> Tensor:
    """Inverse scan orders (2n, L) int64: row k holds the step at which direction k visits each raster index.

    Shared between callers, so never write to them.
    """
    with torch.inference_mode(False):
        return cached_orders(sizes, thickness, device).argsort(dim=1)
