"""Policies that are known are translated as a whole; anything that is not known is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.base.basic_transform import ImageOnlyTransform
from batchgeneratorsv2.transforms.intensity.brightness import (
    BrightnessAdditiveTransform,
    MultiplicativeBrightnessTransform,
)
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.nnunet.random_binary_operator import ApplyRandomBinaryOperatorTransform
from batchgeneratorsv2.transforms.nnunet.remove_connected_components import (
    RemoveRandomConnectedComponentFromOneHotEncodingTransform,
)
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import OneOfTransform, RandomTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_slicemamba.augmentation import Batch, UnknownTransformError, translate

LABELS = (-1, 0, 1, 2)
FINAL = {"2d": (64, 64), "2d odd": (51, 71), "3d": (24, 32, 31), "thick slices": (8, 32, 31)}


class Mirrored(MirrorTransform):
    """A subclass may do anything."""


class Constant(ImageOnlyTransform):
    """An operation of someone else's."""


def spatial(**settings):
    return SpatialTransform((8, 8), 0, False, p_rotation=0.2, **settings)


def with_attribute(transform, **attributes):
    vars(transform).update(attributes)
    return transform


@pytest.mark.parametrize(
    ("transform", "named"),
    [
        (Constant(), "Constant"),
        (Mirrored((0,)), "Mirrored"),
        (BrightnessAdditiveTransform(0, 1), "BrightnessAdditiveTransform"),
        (OneOfTransform([MirrorTransform((0,))]), "OneOfTransform"),
        (RandomTransform(Constant(), 0.5), "Constant"),
        (RandomTransform(RandomTransform(MirrorTransform((0,)), 0.5), 0.5), "RandomTransform"),
        (RandomTransform(spatial(), 0.5), "crops only some samples"),
        (spatial(p_elastic_deform=0.2), "p_elastic_deform = 0.2"),
        (spatial(mode_seg="nearest"), "mode_seg = 'nearest'"),
        (spatial(mode_image="bicubic"), "mode_image = 'bicubic'"),
        (spatial(padding_mode_image="reflection"), "padding_mode_image = 'reflection'"),
        (spatial(border_mode_seg="border"), "border_mode_seg = 'border'"),
        (spatial(seg_tiebreak="lowest"), "seg_tiebreak = 'lowest'"),
        (spatial(align_corners=True), "align_corners = True"),
        (spatial(scaling=lambda **_: 1.0), "scaling = .*lambda"),
        (GaussianNoiseTransform(lambda image: 0.1), "noise_variance = .*lambda"),
        (ContrastTransform(BGContrast(lambda: 1.0), True, False), "contrast_range = BGContrast"),
        (with_attribute(MirrorTransform((0,)), p_per_axis=0.3), "MirrorTransform with parameters .'p_per_axis'"),
        (Convert3DTo2DTransform(), "slices of a volume"),
        (
            ComposeTransforms([Convert3DTo2DTransform(), spatial(), MirrorTransform((0,)), Convert2DTo3DTransform()]),
            "slices of a volume",
        ),
        (ApplyRandomBinaryOperatorTransform([-1], (torch.logical_not,)), "logical_not"),
        (RemoveRandomConnectedComponentFromOneHotEncodingTransform([-1], 0.5), "fill_with_other_class_p = 0.5"),
        (DownsampleSegForDSTransform([1, 0.5]), "one scale for all axes"),
    ],
)
def test_what_is_not_known_is_named(transform, named):
    with pytest.raises(UnknownTransformError, match=named):
        translate(ComposeTransforms([MultiplicativeBrightnessTransform(1.0, False), transform]), LABELS)


def nnunets(kind, channels, **settings):
    """nnU-Net's training policy for patches of a kind."""
    patch, slices = FINAL[kind], kind == "thick slices"
    scales = [[1.0] * len(patch), [0.5] * len(patch)]
    usual = {"use_mask_for_norm": [False] * channels, "is_cascaded": False, "foreground_labels": [1, 2]}
    axes = tuple(range(len(patch)))
    return nnUNetTrainer.get_training_transforms(patch, (-1.0, 1.0), scales, axes, slices, **(usual | settings))


ROWS = {
    "plain": {},
    "masked": {"use_mask_for_norm": [True, False, True, False, True]},
    "regions": {"regions": [(1, 2), (2,)]},
    "regions with ignored voxels": {"regions": [(1, 2), 2], "ignore_label": 3},
    "cascade": {"is_cascaded": True},
    "cascade with regions": {"is_cascaded": True, "regions": [(1, 2), 2]},
}


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("row", ROWS)
def test_every_kind_of_data_set_gives_batches_like_nnunets(kind, row, channels, real_batch):
    settings = dict(ROWS[row])
    if "use_mask_for_norm" in settings:
        settings["use_mask_for_norm"] = settings["use_mask_for_norm"][:channels]
    batch = real_batch(kind, samples=2, channels=channels, previous="cascade" in row)
    if "ignored" in row:
        batch.seg[..., :5] = 3
    transforms = nnunets(kind, channels, **settings)
    single = [transforms(image=i.clone(), segmentation=s.clone()) for i, s in zip(batch.data, batch.seg, strict=True)]
    made = translate(transforms, (*LABELS, 3))(batch, np.random.SeedSequence(0))
    assert made.data.shape[1:] == single[0]["image"].shape
    assert made.data.dtype == single[0]["image"].dtype
    assert torch.isfinite(made.data).all()
    for ours, theirs in zip(made.seg, single[0]["segmentation"], strict=True):
        assert ours.shape[1:] == theirs.shape
        assert ours.dtype == theirs.dtype
    known = {0, 1} if "regions" in row else {0, 1, 2}
    assert set(made.seg[0].unique().tolist()) <= known
    if "cascade" in row:
        assert set(made.data[:, channels:].unique().tolist()) == {0, 1}


def test_regions_of_single_labels_are_as_good_as_sets():
    batch = Batch(torch.zeros(1, 1, 4, 4), torch.arange(16, dtype=torch.int16).view(1, 1, 4, 4) % 3)
    got = translate(ConvertSegmentationToRegionsTransform([1, (1, 2)]), LABELS)(batch, np.random.SeedSequence(0))
    assert torch.equal(got.seg, torch.cat([batch.seg == 1, batch.seg >= 1], 1))


def test_the_same_seed_gives_the_same_batch_and_another_one_another(kind, real_batch):
    policy = translate(nnunets(kind, 2), LABELS)
    made = [policy(real_batch(kind), np.random.SeedSequence([seed])) for seed in (4, 4, 5)]
    assert torch.equal(made[0].data, made[1].data)
    assert torch.equal(made[0].seg[0], made[1].seg[0])
    assert not torch.equal(made[0].data, made[2].data)


def test_validation_is_without_chance(real_batch):
    transforms = nnUNetTrainer.get_validation_transforms([[1.0, 1.0]], regions=[(1, 2), 2])
    policy = translate(transforms, LABELS)
    made = [policy(real_batch("2d"), np.random.SeedSequence([seed])) for seed in (1, 2)]
    assert torch.equal(made[0].data, real_batch("2d").data)
    assert torch.equal(made[0].seg[0], made[1].seg[0])
