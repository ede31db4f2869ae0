"""A training's or a validation's sequence of operations on batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from nnunetv2_slicemamba.augmentation.batch import Batch, Twin


@dataclass(frozen=True)
class Step:
    """An operation that each sample undergoes with some probability."""

    twin: Twin
    probability: float = 1.0


@dataclass(frozen=True)
class Policy:
    """Operations one after the other. The same batch and the same seed give the same result on the same device."""

    steps: tuple[Step, ...]

    @torch.no_grad()
    def __call__(self, batch: Batch, seed: np.random.SeedSequence) -> Batch:
        """The batch after all operations; the given tensors may be changed."""
        rng = np.random.default_rng(seed)
        for step in self.steps:
            chosen = rng.random(len(batch.data)) < step.probability
            batch = step.twin.apply(batch, step.twin.draw(batch.shape, rng, chosen))
        return batch
