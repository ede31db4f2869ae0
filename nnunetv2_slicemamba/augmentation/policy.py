"""A training's or a validation's sequence of operations on batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nnunetv2_slicemamba.augmentation.batch import Batch, Twin


@dataclass(frozen=True)
class Step:
    """An operation that each sample undergoes with some probability."""

    twin: Twin
    probability: float = 1.0

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
        """Random parameters of one application to a batch whose data has this shape."""
        return self.twin.draw(shape, rng, rng.random(shape[0]) < self.probability)


@dataclass(frozen=True)
class Policy:
    """Operations one after the other. The same batch and the same seed give the same result on the same device."""

    steps: tuple[Step, ...]

    @torch.no_grad()
    def __call__(self, batch: Batch, seed: np.random.SeedSequence) -> Batch:
        """The batch after all operations; the given tensors may be changed."""
        rng = np.random.default_rng(seed)
        for step in self.steps:
            batch = step.twin.apply(batch, step.draw(batch.shape, rng))
        return batch
