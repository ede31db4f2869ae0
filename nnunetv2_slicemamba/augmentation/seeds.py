"""Seeds of a training's random draws: functions of its seed and of where it stands, never of what it did before."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import numpy as np
import torch

ENVIRONMENT_VARIABLE = "SLICEMAMBA_SEED"


class Use(IntEnum):
    """Uses of a seed."""

    WEIGHTS = 0
    TRAINING_BATCHES = 1
    VALIDATION_BATCHES = 2
    STEPS = 3


def seed_from_environment() -> int | None:
    """SLICEMAMBA_SEED; None if it is not set. ValueError if it is no natural number."""
    value = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if not value:
        return None
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"{ENVIRONMENT_VARIABLE} is {value!r}: set it to a number from 0 on, or unset it")
    return int(value)


def sequence(seed: int, use: Use, *place: int) -> np.random.SeedSequence:
    """The seed of one place, such as an iteration and a rank; different places are independent of each other."""
    return np.random.SeedSequence([seed, use, *place])


def seed_generators(source: np.random.SeedSequence) -> None:
    """Seeds the process's generators: Python's, NumPy's, and PyTorch's on all devices."""
    of_python, of_numpy, of_torch = source.generate_state(3, dtype=np.uint32).tolist()
    random.seed(of_python)
    np.random.seed(of_numpy)  # noqa: NPY002 - nnU-Net draws from the global generator
    torch.manual_seed(of_torch)


@contextmanager
def generators_seeded(source: np.random.SeedSequence) -> Iterator[None]:
    """As seed_generators for a while; then the host's generators go on where they stood."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - as above
    of_python, of_numpy, of_torch = source.generate_state(3, dtype=np.uint32).tolist()
    try:
        random.seed(of_python)
        np.random.seed(of_numpy)  # noqa: NPY002 - as above
        torch.default_generator.manual_seed(of_torch)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002 - as above
        torch.set_rng_state(states[2])


@contextmanager
def deterministic() -> Iterator[None]:
    """PyTorch's repeatable operations for a while; it warns of those that are not."""
    settings: Any = torch.utils.deterministic
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        settings.fill_uninitialized_memory,
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    # only reading memory that was never written would depend on it
    settings.fill_uninitialized_memory = False
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        settings.fill_uninitialized_memory = before[2]
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[3:]
