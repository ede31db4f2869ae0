"""Tolerances and comparisons of the fused block's tests."""

from __future__ import annotations

import torch

HALF, BFLOAT, SINGLE = torch.float16, torch.bfloat16, torch.float32
TOLERANCE = {SINGLE: 1e-5, HALF: 2e-2, BFLOAT: 2e-2}


def relative_error(got, wanted):
    assert got.shape == wanted.shape
    difference = (got.double() - wanted.double()).norm().item()
    error = difference / max(wanted.double().norm().item(), 1e-30)
    return float("inf") if error != error else error


def check(got, wanted, tolerance):
    assert got.keys() == wanted.keys()
    errors = {name: relative_error(value, wanted[name]) for name, value in got.items()}
    print({name: f"{error:.1e}" for name, error in errors.items()})
    assert max(errors.values()) < tolerance, errors


def guarded(rows, columns, dtype, shift=0):
    """A (rows, columns) tensor amid NaN, and a function that tells whether the NaN around it are untouched."""
    room = torch.full((rows * columns + 128 + shift,), float("nan"), dtype=dtype)
    inner = room[64 + shift : 64 + shift + rows * columns]

    def untouched():
        return bool(room[: 64 + shift].isnan().all() and room[64 + shift + rows * columns :].isnan().all())

    return inner.view(rows, columns), untouched
