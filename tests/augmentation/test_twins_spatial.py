"""Rotation, scaling, cropping and mirroring of batches agree with batchgeneratorsv2's on single images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import (
    SpatialTransform,
    _convert_my_grid_to_grid_sample_grid,
    _create_centered_identity_grid2,
    create_affine_matrix_2d,
    create_affine_matrix_3d,
)
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform

from nnunetv2_slicemamba.augmentation import Batch, translate
from nnunetv2_slicemamba.augmentation.geometry import rotation_2d, rotation_3d
from nnunetv2_slicemamba.augmentation.spatial_labels import resample_labels

LABELS = (-1, 0, 1, 2)
PATCHES = {"2d": (64, 64), "2d odd": (51, 71), "3d": (24, 32, 31), "thick slices": (8, 32, 31)}


def spatial(patch, **settings):
    """nnU-Net's spatial transform, which here changes every sample unless `settings` say otherwise."""
    usual = {
        "patch_center_dist_from_border": 0,
        "random_crop": False,
        "p_rotation": 1,
        "rotation": (-0.5, 0.5),
        "p_scaling": 1,
        "scaling": (0.7, 1.4),
        "p_synchronize_scaling_across_axes": 1,
        "border_mode_seg": "constant",
        "padding_value_seg": -1,
    }
    return SpatialTransform(patch, **(usual | settings))


def parameters_of(transform, drawn, sample, shape):
    """Parameters of one sample's draws, as get_parameters of batchgeneratorsv2 returns them."""
    centre = drawn.centres[sample].tolist()
    grid = None
    if drawn.moved[sample]:
        matrix = torch.from_numpy(drawn.matrices[sample].T.copy()).float()
        grid = torch.matmul(_create_centered_identity_grid2(transform.patch_size).float(), matrix)
        grid += torch.Tensor([c - s / 2 for c, s in zip(centre, shape, strict=True)])
        grid = _convert_my_grid_to_grid_sample_grid(grid, shape)
    return {"grid": grid, "center_location_in_pixels": centre}


def compare(transform, batch, by_sample, assert_close, seed=0, per_slice=False):
    """Applies the twin and the transform to the same draws; returns the draws."""
    chain = [Convert3DTo2DTransform(), transform, Convert2DTo3DTransform()] if per_slice else [transform]
    (step,) = translate(ComposeTransforms(chain), LABELS).steps
    drawn = step.twin.draw(batch.shape, np.random.default_rng(seed), np.ones(len(batch.data), bool))
    got = step.twin.apply(Batch(batch.data.clone(), batch.seg.clone()), drawn)

    def single(i, data, seg):
        depth = data.shape[1]
        if per_slice:
            data, seg = data.flatten(0, 1), seg.flatten(0, 1)
        parameters = parameters_of(transform, drawn, i, data.shape[1:])
        data = transform._apply_to_image(data, **parameters)
        seg = transform._apply_to_segmentation(seg, **parameters)
        return (data.unflatten(0, (-1, depth)), seg.unflatten(0, (-1, depth))) if per_slice else (data, seg)

    expected = by_sample(batch, single)
    assert_close(got.data, expected.data, batch.data)
    assert got.seg.dtype == expected.seg.dtype == torch.int16
    assert got.seg.shape == expected.seg.shape
    # a score within rounding of another one may become a tie on one side only
    assert (got.seg != expected.seg).float().mean() < 1e-4
    return drawn


@pytest.mark.parametrize("previous", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_rotation_and_scaling(kind, seed, previous, real_batch, by_sample, assert_close):
    batch = real_batch(kind, previous=previous)
    drawn = compare(spatial(PATCHES[kind]), batch, by_sample, assert_close, seed)
    assert drawn.moved.all()


def test_beyond_the_source_images_are_zero_and_labels_are_minus_one(kind, real_batch, by_sample, assert_close):
    batch = real_batch(kind)
    # larger factors make smaller objects: the patch reaches far out of the source
    transform = spatial(PATCHES[kind], scaling=(2.5, 2.6))
    compare(transform, batch, by_sample, assert_close)
    (step,) = translate(transform, LABELS).steps
    drawn = step.twin.draw(batch.shape, np.random.default_rng(0), np.ones(3, bool))
    got = step.twin.apply(batch, drawn)
    corner = (..., *(0,) * (batch.data.ndim - 2))
    assert (got.data[corner] == 0).all()
    assert (got.seg[corner] == -1).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"p_synchronize_scaling_across_axes": 0},
        {"p_rot_per_axis": 0.5},
        {"border_mode_seg": "zeros"},
        {"padding_mode_image": "constant", "padding_value_image": 2.5, "scaling": (1.5, 1.6)},
        {"random_crop": True, "patch_center_dist_from_border": 20},
        {"random_crop": True, "patch_center_dist_from_border": 3, "p_rotation": 0, "p_scaling": 0},
        {"p_rotation": 0, "p_scaling": 0},
        {"p_rotation": 0.4, "p_scaling": 0.4},
    ],
    ids=str,
)
def test_other_parameters(kind, settings, real_batch, by_sample, assert_close):
    compare(spatial(PATCHES[kind], **settings), real_batch(kind, samples=4), by_sample, assert_close, seed=3)


def test_slices_of_a_volume_move_together(real_batch, by_sample, assert_close):
    batch = real_batch("thick slices", previous=True)
    compare(spatial((32, 31), rotation=(-3, 3)), batch, by_sample, assert_close, per_slice=True)


def test_rotations_are_those_of_batchgeneratorsv2():
    angles = np.random.default_rng(0).uniform(-3, 3, (5, 3))
    for got, one in zip(rotation_3d(angles), angles, strict=True):
        assert got == pytest.approx(create_affine_matrix_3d(one, [1, 1, 1]))
    for got, one in zip(rotation_2d(angles[:, 0]), angles[:, 0], strict=True):
        assert got == pytest.approx(create_affine_matrix_2d(one, [1, 1]))


def checkerboard(labels):
    """(1, 1, 9, 9), every place between voxels is a tie of two or four labels."""
    places = torch.arange(9)
    return torch.tensor(labels, dtype=torch.int16)[(places[:, None] * 2 + places[None] * 3) % len(labels)][None, None]


@pytest.mark.parametrize("labels", [[0, 1], [-1, 0, 3], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("shift", [(0.5, 0.0), (0.5, 0.5), (0.25, 0.5)])
def test_ties_between_labels_go_to_the_nearest_voxels_label(labels, shift):
    seg = checkerboard(labels)
    transform = spatial((7, 7))
    grid = _create_centered_identity_grid2((7, 7)).float() + torch.tensor(shift)
    grid = _convert_my_grid_to_grid_sample_grid(grid, (9, 9))
    expected = transform._apply_to_segmentation(seg[0].clone(), grid=grid)
    got = resample_labels(seg, grid[None], labels, -1)[0]
    assert torch.equal(got, expected)


def test_labels_resampled_in_parts_are_those_resampled_at_once(monkeypatch, real_batch):
    seg = real_batch("2d", previous=True).seg
    grid = _create_centered_identity_grid2((60, 60)).float() @ torch.tensor([[0.9, 0.5], [-0.5, 0.9]])
    grid = _convert_my_grid_to_grid_sample_grid(grid, seg.shape[2:]).expand(3, -1, -1, -1)
    at_once = resample_labels(seg, grid, LABELS, -1)
    monkeypatch.setattr("nnunetv2_slicemamba.augmentation.spatial_labels.ELEMENTS_AT_ONCE", 1)
    assert torch.equal(resample_labels(seg, grid, LABELS, -1), at_once)


def test_mirroring(kind, real_batch, by_sample):
    batch = real_batch(kind, samples=8, previous=True)
    axes = tuple(range(batch.data.ndim - 2))
    transform = MirrorTransform(axes)
    (step,) = translate(transform, LABELS).steps
    drawn = step.twin.draw(batch.shape, np.random.default_rng(0), np.ones(8, bool))

    def single(i, data, seg):
        parameters = {"axes": np.flatnonzero(drawn[i]).tolist()}
        return transform._apply_to_image(data, **parameters), transform._apply_to_segmentation(seg, **parameters)

    expected = by_sample(batch, single)
    got = step.twin.apply(Batch(batch.data.clone(), batch.seg.clone()), drawn)
    assert torch.equal(got.data, expected.data)
    assert torch.equal(got.seg, expected.seg)
    assert len({tuple(mirrored) for mirrored in drawn}) > 2
