"""Intensity operations on batches, given the same draws, agree with batchgeneratorsv2's on single images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform

from nnunetv2_slicemamba.augmentation import Batch, translate
from nnunetv2_slicemamba.augmentation.batch import Rows

LABELS = (-1, 0, 1, 2)


def drawn(transform: Any, batch: Batch, seed: int = 0) -> tuple[Any, Any]:
    """The transform's twin and what it draws for all samples of a batch."""
    twin = translate(transform, LABELS).steps[0].twin
    chosen = np.ones(len(batch.data), bool)
    return twin, twin.draw(batch.shape, np.random.default_rng(seed), chosen)


def of_sample(rows: Rows, sample: int, channels: int) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Channels, their numbers, and their places in the rows of one sample."""
    own = np.flatnonzero(rows.planes // channels == sample)
    return torch.from_numpy(rows.planes[own] % channels), rows.values[own], own


def copy(batch: Batch) -> Batch:
    return Batch(batch.data.clone(), batch.seg.clone())


def test_brightness(kind, real_batch, assert_close):
    batch = real_batch(kind, channels=3)
    transform = MultiplicativeBrightnessTransform(BGContrast((0.75, 1.25)), False, 0.7)
    twin, rows = drawn(transform, batch)
    assert 0 < len(rows.planes) < 9
    got = twin.apply(copy(batch), rows)
    for i, image in enumerate(batch.data):
        channels, values, _ = of_sample(rows, i, 3)
        parameters = {"apply_to_channel": channels, "multipliers": torch.from_numpy(values).float()}
        assert_close(got.data[i], transform._apply_to_image(image.clone(), **parameters), batch.data)


@pytest.mark.parametrize("keep_range", [True, False])
def test_contrast(kind, keep_range, real_batch, assert_close):
    batch = real_batch(kind, channels=3)
    transform = ContrastTransform(BGContrast((0.5, 1.5)), keep_range, False, 0.7)
    twin, rows = drawn(transform, batch)
    got = twin.apply(copy(batch), rows)
    for i, image in enumerate(batch.data):
        channels, values, _ = of_sample(rows, i, 3)
        parameters = {"apply_to_channel": channels, "multipliers": torch.from_numpy(values).float()}
        assert_close(got.data[i], transform._apply_to_image(image.clone(), **parameters), batch.data)


@pytest.mark.parametrize(("inverts", "keeps"), [(1, 1), (0, 1), (0.5, 0.5), (0, 0)])
def test_gamma(kind, inverts, keeps, real_batch, assert_close):
    batch = real_batch(kind, channels=3)
    transform = GammaTransform(BGContrast((0.7, 1.5)), inverts, False, 0.8, keeps)
    twin, draw = drawn(transform, batch)
    got = twin.apply(copy(batch), draw)
    for i, image in enumerate(batch.data):
        channels, values, own = of_sample(draw.rows, i, 3)
        parameters = {
            "apply_to_channel": channels,
            "gamma": torch.from_numpy(values).float(),
            "invert_image": torch.from_numpy(draw.inverted[own]),
            "retain_stats": torch.from_numpy(draw.keeps[own]),
        }
        assert_close(got.data[i], transform._apply_to_image(image.clone(), **parameters), batch.data)


def test_gamma_of_a_constant_image_is_finite():
    batch = Batch(torch.full((2, 1, 8, 8), 3.0), torch.zeros(2, 1, 8, 8, dtype=torch.int16))
    twin, draw = drawn(GammaTransform((0.7, 1.5), 0, False, 1, 1), batch)
    assert torch.equal(twin.apply(copy(batch), draw).data, batch.data)


@pytest.mark.parametrize("same_axes", [True, False])
@pytest.mark.parametrize("benchmark", [True, False])
def test_blur(kind, same_axes, benchmark, real_batch, assert_close):
    batch = real_batch(kind, channels=3)
    transform = GaussianBlurTransform((0.5, 1.5), False, same_axes, 0.7, benchmark)
    transform.benchmark_num_runs = 1
    twin, rows = drawn(transform, batch)
    assert rows.values.shape == (len(rows.planes), batch.data.ndim - 2)
    assert (len(np.unique(rows.values[0])) == 1) == same_axes
    got = twin.apply(copy(batch), rows)
    for i, image in enumerate(batch.data):
        channels, values, _ = of_sample(rows, i, 3)
        mask = torch.zeros(3, dtype=torch.bool)
        mask[channels] = True
        expected = transform._apply_to_image(image.clone(), apply_to_channel=mask, sigmas=values.tolist())
        assert_close(got.data[i], expected, batch.data)


@pytest.mark.parametrize("scale", [(0.5, 1), (0.2, 1)])
@pytest.mark.parametrize(("same_axes", "kept"), [(True, None), (True, (0,)), (False, None)])
def test_low_resolution(kind, scale, same_axes, kept, real_batch, assert_close):
    batch = real_batch(kind, samples=4, channels=3)
    transform = SimulateLowResolutionTransform(scale, False, same_axes, kept, None, 0.7)
    twin, rows = drawn(transform, batch)
    assert kept is None or (rows.values[:, 0] == 1).all()
    got = twin.apply(copy(batch), rows)
    for i, image in enumerate(batch.data):
        channels, values, _ = of_sample(rows, i, 3)
        parameters = {"apply_to_channel": channels, "scales": torch.from_numpy(values).float()}
        assert_close(got.data[i], transform._apply_to_image(image.clone(), **parameters), batch.data)


def test_low_resolution_of_allowed_channels_only(real_batch):
    batch = real_batch("2d", channels=3)
    transform = SimulateLowResolutionTransform((0.5, 0.6), False, True, None, (0, 2), 1)
    twin, rows = drawn(transform, batch)
    assert sorted(set(rows.planes % 3)) == [0, 2]
    changed = (twin.apply(copy(batch), rows).data != batch.data).flatten(2).any(2)
    assert changed.tolist() == [[True, False, True]] * 3


@pytest.mark.parametrize("synchronised", [True, False])
def test_noise(kind, synchronised, real_batch, assert_close):
    """The noise itself is drawn where it is added, by both: the same seed gives both the same."""
    batch = real_batch(kind, samples=1, channels=3)
    transform = GaussianNoiseTransform((0.05, 0.1), 0.8, synchronised)
    twin, draw = drawn(transform, batch)
    got = twin.apply(copy(batch), draw)
    channels, values, _ = of_sample(draw.rows, 0, 3)
    assert (len(set(values)) == 1) == synchronised
    torch.manual_seed(draw.seed)
    parameters = {
        "num_apply": len(channels),
        "apply_idx": channels,
        "sigmas": values[0] if synchronised else values.tolist(),
    }
    assert_close(got.data[0], transform._apply_to_image(batch.data[0].clone(), **parameters), batch.data)
    assert not torch.equal(got.data, batch.data)


def test_noise_differs_between_samples_and_channels(real_batch):
    batch = real_batch("2d", samples=2, channels=2)
    twin, draw = drawn(GaussianNoiseTransform((0.1, 0.1), 1, True), batch)
    noise = (twin.apply(copy(batch), draw).data - batch.data).flatten(0, 1).flatten(1)
    correlations = torch.corrcoef(noise) - torch.eye(4)
    assert correlations.abs().max() < 0.1
    assert noise.std(1).numpy() == pytest.approx(0.1, rel=0.05)
