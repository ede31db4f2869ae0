"""A training's or a validation's sequence of operations on batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nnunetv2_slicemamba.augmentation.batch import Arrays, Batch, FixedTwin, Shape, Tensors, Twin


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

    @property
    def is_fixed(self) -> bool:
        """True if all operations are FixedTwins: `arrays` and `change` can then take the place of a call."""
        return all(isinstance(step.twin, FixedTwin) for step in self.steps)

    @torch.no_grad()
    def __call__(self, batch: Batch, seed: np.random.SeedSequence) -> Batch:
        """The batch after all operations; the given tensors may be changed."""
        rng = np.random.default_rng(seed)
        for step in self.steps:
            batch = step.twin.apply(batch, step.draw(batch.shape, rng))
        return batch

    def arrays(self, shape: Shape, seed: np.random.SeedSequence) -> list[Arrays]:
        """The operations' arrays, in their order, for a batch whose data has this shape; seed: of all draws."""
        rng = np.random.default_rng(seed)
        made = []
        for step in self.steps:
            assert isinstance(step.twin, FixedTwin)
            made.append(step.twin.arrays(shape, step.draw(shape, rng)))
            shape = step.twin.output_shape(shape)
        return made

    @torch.no_grad()
    def change(self, batch: Batch, given: Sequence[Tensors]) -> Batch:
        """The batch after all operations; given: the arrays on its device."""
        for step, tensors in zip(self.steps, given, strict=True):
            assert isinstance(step.twin, FixedTwin)
            batch = step.twin.change(batch, tensors)
        return batch
