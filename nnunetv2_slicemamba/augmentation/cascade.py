"""Errors of a cascade's first stage, imitated on its one-hot channels: grown, shrunken and missing parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from acvl_utils.morphology.morphology_helper import label_with_component_sizes
from skimage.morphology import ball, disk
from torch import Tensor

from nnunetv2_slicemamba.augmentation.batch import Batch, Bools, Twin
from nnunetv2_slicemamba.augmentation.scalars import Scalar


def dilated(mask: Tensor, element: Tensor) -> Tensor:
    """mask and element are booleans of as many axes; even elements reach one voxel further forward."""
    shape = [a + b - 1 for a, b in zip(mask.shape, element.shape, strict=True)]
    spectrum = torch.fft.rfftn(mask.float(), shape) * torch.fft.rfftn(element.flip(*range(element.ndim)).float(), shape)
    full = torch.fft.irfftn(spectrum, shape)
    for axis, size in enumerate(mask.shape):
        length = element.shape[axis]
        full = full.narrow(axis, length - 1 - (length - 1) // 2, size)
    return full > 0.5


def eroded(mask: Tensor, element: Tensor) -> Tensor:
    return ~dilated(~mask, element)


def opened(mask: Tensor, element: Tensor) -> Tensor:
    return dilated(eroded(mask, element), element)


def closed(mask: Tensor, element: Tensor) -> Tensor:
    return eroded(dilated(mask, element), element)


Operation = Callable[[Tensor, Tensor], Tensor]


def draw_channels(rng: np.random.Generator, channels: tuple[int, ...], p: float) -> list[int]:
    """Each channel with probability p, in random order: the later ones undo what the earlier ones did."""
    order = rng.permutation(channels)
    return order[rng.random(len(order)) < p].tolist()


@dataclass(frozen=True)
class Morphology(Twin):
    """Grows, shrinks, opens or closes the chosen samples' channels, each with probability p_channel.

    What a channel gains is taken from the others. radius: of the disk or ball, in voxels, not rounded.
    """

    channels: tuple[int, ...]
    operations: tuple[Operation, ...]
    radius: Scalar
    p_channel: float

    def draw(
        self, shape: tuple[int, ...], rng: np.random.Generator, chosen: Bools
    ) -> list[tuple[int, int, Operation, float]]:
        """Sample, channel, operation and radius, in the order of application."""
        return [
            (
                int(sample),
                channel,
                self.operations[rng.integers(len(self.operations))],
                float(self.radius.draw(rng, ())),
            )
            for sample in np.flatnonzero(chosen)
            for channel in draw_channels(rng, self.channels, self.p_channel)
        ]

    def apply(self, batch: Batch, drawn: list[tuple[int, int, Operation, float]]) -> Batch:
        for sample, channel, operation, radius in drawn:
            image = batch.data[sample]
            element = torch.from_numpy((disk if image.ndim == 3 else ball)(radius, dtype=bool)).to(image.device)
            before = image[channel] > 0
            after = operation(before, element)
            gained = after & ~before
            for other in self.channels:
                image[other].masked_fill_(gained, 0)
            image[channel] = after.to(image.dtype)
        return batch


@dataclass(frozen=True)
class RemoveComponent(Twin):
    """Empties one connected component of the chosen samples' channels, each with probability p_channel.

    largest: share of the patch that a component must stay below.
    """

    channels: tuple[int, ...]
    largest: float
    p_channel: float

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator, chosen: Bools) -> list[tuple[int, int, float]]:
        """Sample, channel, and where in the list of components, from 0 to 1, the removed one stands."""
        return [
            (int(sample), channel, float(rng.random()))
            for sample in np.flatnonzero(chosen)
            for channel in draw_channels(rng, self.channels, self.p_channel)
        ]

    def apply(self, batch: Batch, drawn: list[tuple[int, int, float]]) -> Batch:
        for sample, channel, place in drawn:
            plane = batch.data[sample, channel]
            # the host labels the components, as there is no such operation in PyTorch
            components, sizes = label_with_component_sizes((plane > 0).cpu().numpy())
            small = [component for component, size in sizes.items() if size < plane.numel() * self.largest]
            if small:
                removed = components == small[int(place * len(small))]
                plane.masked_fill_(torch.from_numpy(removed).to(plane.device), 0)
        return batch
