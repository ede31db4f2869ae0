"""Labels in batches become what batchgeneratorsv2 makes of them in single segmentations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.nnunet import random_binary_operator as operators
from batchgeneratorsv2.transforms.nnunet.remove_connected_components import (
    RemoveRandomConnectedComponentFromOneHotEncodingTransform,
)
from batchgeneratorsv2.transforms.nnunet.seg_to_onehot import MoveSegAsOneHotToDataTransform
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform

from nnunetv2_slicemamba.augmentation import Batch, translate
from nnunetv2_slicemamba.augmentation.translation import OPERATIONS

LABELS = (-1, 0, 1, 2)


def applied(transform, batch, seed=0):
    """The twin's result for all samples of a batch, and what it drew."""
    (step,) = translate(transform, LABELS).steps
    drawn = step.twin.draw(batch.shape, np.random.default_rng(seed), np.ones(len(batch.data), bool))
    return step.twin.apply(Batch(batch.data.clone(), batch.seg.clone()), drawn), drawn


@pytest.mark.parametrize(
    "transform",
    [
        MaskImageTransform([0, 2], 0, 0),
        MaskImageTransform([], 0, 0),
        RemoveLabelTansform(-1, 0),
        RemoveLabelTansform(2, 1, [1]),
        MoveSegAsOneHotToDataTransform(1, [1, 2], True),
        MoveSegAsOneHotToDataTransform(0, [2, 0, 1], False),
        ConvertSegmentationToRegionsTransform([(1, 2), (2,), 1], 0),
    ],
    ids=str,
)
def test_operations_without_chance(transform, kind, real_batch):
    batch = real_batch(kind, channels=3, previous=True)
    got, _ = applied(transform, batch)
    for i, (data, seg) in enumerate(zip(batch.data, batch.seg, strict=True)):
        expected = transform(image=data.clone(), segmentation=seg.clone())
        assert torch.equal(got.data[i], expected["image"])
        assert torch.equal(got.seg[i], expected["segmentation"])
        assert got.seg.dtype == expected["segmentation"].dtype


@pytest.mark.parametrize("regions", [False, True])
def test_targets_of_deep_supervision(kind, regions, real_batch):
    batch = real_batch(kind)
    if regions:
        batch = Batch(batch.data, torch.cat([batch.seg == 1, batch.seg >= 1], 1))
    axes = batch.data.ndim - 2
    scales = [[1.0] * axes, [0.5] * axes, [1.0, *[0.25] * (axes - 1)], [1 / 3] * axes]
    transform = DownsampleSegForDSTransform(scales)
    got, _ = applied(transform, batch)
    for i, seg in enumerate(batch.seg):
        for ours, theirs in zip(got.seg, transform._apply_to_segmentation(seg.clone()), strict=True):
            assert torch.equal(ours[i], theirs)
            assert ours.dtype == theirs.dtype


def cascade_batch(real_batch, kind):
    """A batch with three one-hot channels of the labels after one image channel."""
    batch, _ = applied(MoveSegAsOneHotToDataTransform(0, [0, 1, 2], False), real_batch(kind, channels=1))
    return batch


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
@pytest.mark.parametrize("radius", [1, 2.5, 4.3])
def test_morphological_operations(operation, radius, kind, real_batch):
    """Disks and balls of broken radius are lopsided, of even size: those, too."""
    batch = cascade_batch(real_batch, kind)
    transform = operators.ApplyRandomBinaryOperatorTransform([-3, -2, -1], (operation,), radius, 0.7)
    got, drawn = applied(transform, batch)
    assert len({channel for _, channel, *_ in drawn}) > 1
    for i, image in enumerate(batch.data):
        own = [(channel, size) for sample, channel, _, size in drawn if sample == i]
        parameters = {
            "apply_to_channels": [channel for channel, _ in own],
            "operators": [operation] * len(own),
            "strel_size": [size for _, size in own],
        }
        expected = transform._apply_to_image(image.clone(), **parameters)
        assert torch.equal(got.data[i], expected)
    assert not torch.equal(got.data, batch.data)


def test_a_removed_component_is_one_of_those_that_are_small_enough(kind, real_batch, monkeypatch):
    batch = cascade_batch(real_batch, kind)
    transform = RemoveRandomConnectedComponentFromOneHotEncodingTransform([-3, -2, -1], 0, 0.15, 0.9)
    got, drawn = applied(transform, batch)
    assert len(drawn) > 3
    for i, image in enumerate(batch.data):
        own = [(channel, place) for sample, channel, place in drawn if sample == i]
        places = iter([place for channel, place in own if has_small_component(image[channel])])
        monkeypatch.setattr(np.random, "choice", lambda ids, places=places: ids[int(next(places) * len(ids))])
        expected = transform._apply_to_image(image.clone(), apply_to_channels=[channel for channel, _ in own])
        assert torch.equal(got.data[i], expected)
    assert not torch.equal(got.data, batch.data)


def has_small_component(plane):
    components, sizes = operators_components(plane)
    return any(size < 0.15 * components.size for size in sizes.values())


def operators_components(plane):
    from batchgeneratorsv2.transforms.nnunet.remove_connected_components import label_with_component_sizes

    return label_with_component_sizes(plane.bool().numpy())
