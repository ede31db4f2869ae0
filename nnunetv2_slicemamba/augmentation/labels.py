"""Masking of images by the segmentation, and what becomes of labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from nnunetv2_slicemamba.augmentation.batch import Arrays, Batch, Bools, FixedTwin, Shape, Tensors


class Unchanging(FixedTwin):
    """An operation without chance: it changes all samples."""

    def draw(self, shape: Shape, rng: np.random.Generator, chosen: Bools) -> None:
        return None

    def arrays(self, shape: Shape, drawn: None) -> Arrays:
        return {}


@dataclass(frozen=True)
class Mask(Unchanging):
    """Sets `channels` to `value` where a channel of the segmentation is negative: outside the case's mask."""

    channels: tuple[int, ...]
    seg_channel: int
    value: float

    def change(self, batch: Batch, given: Tensors) -> Batch:
        outside = batch.seg[:, self.seg_channel] < 0
        for channel in self.channels:
            batch.data[:, channel].masked_fill_(outside, self.value)
        return batch


@dataclass(frozen=True)
class ReplaceLabel(Unchanging):
    """Replaces a label in the segmentation's channels, all of them if `channels` is None."""

    label: int
    by: int
    channels: tuple[int, ...] | None

    def change(self, batch: Batch, given: Tensors) -> Batch:
        for channel in range(batch.seg.shape[1]) if self.channels is None else self.channels:
            part = batch.seg[:, channel]
            part.masked_fill_(part == self.label, self.by)
        return batch


@dataclass(frozen=True)
class Regions(Unchanging):
    """One channel of booleans per region, which is a set of labels of one of the segmentation's channels."""

    regions: tuple[tuple[int, ...], ...]
    channel: int

    def change(self, batch: Batch, given: Tensors) -> Batch:
        seg = batch.seg[:, self.channel]
        inside = [torch.stack([seg == label for label in region]).any(0) for region in self.regions]
        return Batch(batch.data, torch.stack(inside, 1))


@dataclass(frozen=True)
class OneHot(Unchanging):
    """Turns a channel of the segmentation into one image channel per label, and removes it there if `removed`."""

    channel: int
    labels: tuple[int, ...]
    removed: bool

    def output_shape(self, shape: Shape) -> Shape:
        return (shape[0], shape[1] + len(self.labels), *shape[2:])

    def change(self, batch: Batch, given: Tensors) -> Batch:
        source = batch.seg[:, self.channel]
        hot = torch.stack([source == label for label in self.labels], 1).to(batch.data.dtype)
        data = torch.cat([batch.data, hot], 1)
        if not self.removed:
            return Batch(data, batch.seg)
        others = [channel for i, channel in enumerate(batch.seg.split(1, 1)) if i != self.channel]
        return Batch(data, torch.cat(others, 1))
