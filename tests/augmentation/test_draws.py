"""Draws of batches are distributed as those of nnU-Net's policy, transform by transform, over many draws.

Both sides' draws become a table with a row per sample and a column per number. Columns, and differences of any two of
them, are compared: differences show what is drawn once for several channels or axes.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.nnunet.random_binary_operator import ApplyRandomBinaryOperatorTransform
from batchgeneratorsv2.transforms.nnunet.remove_connected_components import (
    RemoveRandomConnectedComponentFromOneHotEncodingTransform,
)
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from scipy.stats import chi2_contingency, ks_2samp

from nnunetv2_slicemamba.augmentation import translate
from nnunetv2_slicemamba.augmentation.batch import Rows
from nnunetv2_slicemamba.augmentation.cascade import Morphology, RemoveComponent
from nnunetv2_slicemamba.augmentation.gamma import DrawnGamma
from nnunetv2_slicemamba.augmentation.noise import DrawnNoise
from nnunetv2_slicemamba.augmentation.policy import Step
from nnunetv2_slicemamba.augmentation.scalars import AroundOne, Uniform
from nnunetv2_slicemamba.augmentation.spatial import DrawnSpatial, PerSlice
from nnunetv2_slicemamba.augmentation.translation import OPERATIONS

CHANNELS = 2
THEIRS, OURS = 3000, 12000
NOT_DONE = -9.0
LABELS = (-1, 0, 1, 2)


def nnunets(dims: int) -> list[Any]:
    """nnU-Net's policy for two images with a cascade, as single transforms."""
    made = nnUNetTrainer.get_training_transforms(
        (6,) * dims, (-0.5, 0.5), None, tuple(range(dims)), False, is_cascaded=True, foreground_labels=[1, 2]
    )
    return [t for t in made.transforms if isinstance(t, RandomTransform | SpatialTransform | MirrorTransform)]


OTHERS = {
    "crop": (2, SpatialTransform((6, 6), [2, 3], True, p_rotation=0.3, rotation=(-2, 2))),
    "axes": (3, SpatialTransform((6, 6, 6), 0, False, p_rotation=1, rotation=(0.1, 1), p_rot_per_axis=0.4)),
    "scales": (
        3,
        SpatialTransform((6, 6, 6), 0, False, p_scaling=0.8, scaling=(0.5, 2), p_synchronize_scaling_across_axes=0.4),
    ),
    "noise": (2, GaussianNoiseTransform((0.1, 0.3), 0.6, False)),
    "blur": (3, RandomTransform(GaussianBlurTransform((1, 2), False, True, 0.7), 0.6)),
    "gamma": (2, GammaTransform((0.5, 2), 0.3, True, 0.7, 0.6)),
    "contrast up": (2, GammaTransform(BGContrast((1.1, 1.5)), 0.3, True, 0.7, 0.6)),
    "resolution": (3, SimulateLowResolutionTransform((0.3, 0.9), True, False, (1,), None, 0.7)),
}
CASES = {
    **{f"{dims}d {i}": (dims, transform) for dims in (2, 3) for i, transform in enumerate(nnunets(dims))},
    **OTHERS,
}


def their_table(transform: Any, dims: int, n: int) -> np.ndarray:
    """n rows of what a transform of batchgeneratorsv2 draws for an image."""
    np.random.seed(0)  # noqa: NPY002 - batchgeneratorsv2 draws from the global generator
    torch.manual_seed(0)
    image = torch.zeros(CHANNELS, *(11,) * dims)
    rows = []
    for _ in range(n):
        done, inner = True, transform
        if isinstance(transform, RandomTransform):
            done, inner = transform.get_parameters()["apply_transform"], transform.transform
        rows.append(their_row(inner, inner.get_parameters(image=image), dims, done))
    return np.array(rows)


def their_row(transform: Any, drawn: dict[str, Any], dims: int, done: bool) -> np.ndarray:
    if isinstance(transform, SpatialTransform):
        matrix = np.full((dims, dims), np.nan) if drawn["affine"] is None else drawn["affine"]
        return spatial_rows(matrix[None], np.array([drawn["center_location_in_pixels"]]))[0]
    if isinstance(transform, MirrorTransform):
        return np.isin(range(dims), drawn["axes"]).astype(float)
    if isinstance(
        transform, ApplyRandomBinaryOperatorTransform | RemoveRandomConnectedComponentFromOneHotEncodingTransform
    ):
        return cascade_row(
            drawn["apply_to_channels"] if done else [],
            [list(OPERATIONS).index(operation) for operation in drawn.get("operators", [])],
            drawn.get("strel_size", []),
        )
    channels = drawn["apply_mask"] if "apply_mask" in drawn else drawn["apply_to_channel"]
    channels = np.flatnonzero(channels) if getattr(channels, "dtype", None) == torch.bool else np.asarray(channels)
    numbers = {
        "sigmas": drawn.get("sigmas"),
        "multipliers": drawn.get("multipliers"),
        "scales": drawn.get("scales"),
        "gamma": drawn.get("gamma"),
    }
    (values,) = [value for value in numbers.values() if value is not None] or [[]]
    values = np.broadcast_to(np.asarray(values, float), (len(channels),)) if np.ndim(values) < 1 else np.asarray(values)
    width = dims if isinstance(transform, GaussianBlurTransform | SimulateLowResolutionTransform) else 1
    if isinstance(transform, GammaTransform):
        width = 3
        if len(channels):
            values = np.stack([values, drawn["invert_image"], drawn["retain_stats"]], 1)
    table = np.full((CHANNELS, width), NOT_DONE)
    if done and len(channels):
        table[channels] = values.reshape(len(channels), width)
    return table.ravel()


def spatial_rows(matrices: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Matrices, their scales (the lengths of columns, as rotations keep them), and centres."""
    lengths = np.linalg.norm(matrices, axis=1)
    return np.nan_to_num(np.concatenate([matrices.reshape(len(matrices), -1), lengths, centres], 1), nan=NOT_DONE)


def our_spatial_rows(drawn: DrawnSpatial) -> np.ndarray:
    return spatial_rows(np.where(drawn.moved[:, None, None], drawn.matrices, np.nan), drawn.centres)


def cascade_row(channels: list[int], operations: list[int], radii: list[float]) -> np.ndarray:
    """Place in the order, operation and radius of each of the last two channels."""
    table = np.full((2, 3), NOT_DONE)
    for place, channel in enumerate(channels):
        table[channel, 0] = place
        if radii:
            table[channel, 1:] = operations[place], radii[place]
    return table.ravel()


def our_table(step: Step, dims: int, n: int) -> np.ndarray:
    """n rows of what a batch of n images draws."""
    drawn = step.draw((n, CHANNELS, *(11,) * dims), np.random.default_rng(0))
    if isinstance(drawn, DrawnSpatial):
        return our_spatial_rows(drawn)
    if isinstance(step.twin, Morphology | RemoveComponent):
        return np.array([our_cascade_row([entry[1:] for entry in own]) for own in by_sample(drawn, n)])
    if isinstance(drawn, DrawnNoise):
        return dense(drawn.rows, n)
    if isinstance(drawn, DrawnGamma):
        return dense(Rows(drawn.rows.planes, np.stack([drawn.rows.values, drawn.inverted, drawn.keeps], 1)), n)
    if isinstance(drawn, Rows):
        return dense(drawn, n)
    return drawn.astype(float)


def by_sample(drawn: list[Any], n: int) -> list[list[Any]]:
    groups = {sample: list(group) for sample, group in itertools.groupby(drawn, key=lambda entry: entry[0])}
    return [groups.get(sample, []) for sample in range(n)]


def our_cascade_row(own: list[Any]) -> np.ndarray:
    names = list(OPERATIONS.values())
    if own and len(own[0]) == 3:
        return cascade_row([c for c, _, _ in own], [names.index(o) for _, o, _ in own], [r for _, _, r in own])
    return cascade_row([channel for channel, _ in own], [], [])


def dense(rows: Rows, n: int) -> np.ndarray:
    values = rows.values.reshape(len(rows.planes), -1)
    table = np.full((n * CHANNELS, values.shape[1]), NOT_DONE)
    table[rows.planes] = values
    return table.reshape(n, -1)


def worst(theirs: np.ndarray, ours: np.ndarray) -> float:
    """The lowest probability that equal distributions would differ as much, over columns and pairs of them."""
    assert theirs.shape[1] == ours.shape[1]
    columns = range(theirs.shape[1])
    pairs = itertools.combinations(columns, 2)
    return min(
        *(differ(theirs[:, i], ours[:, i], theirs[:, i], ours[:, i]) for i in columns),
        *(differ(theirs[:, i] - theirs[:, j], ours[:, i] - ours[:, j], theirs[:, i], ours[:, i]) for i, j in pairs),
        differ((theirs == NOT_DONE).sum(1), (ours == NOT_DONE).sum(1), theirs[:, 0] * 0, ours[:, 0] * 0),
    )


def differ(theirs: np.ndarray, ours: np.ndarray, of_theirs: np.ndarray, of_ours: np.ndarray) -> float:
    """Smaller p-value of two comparisons: the numbers where something is done, and how often it is done."""
    done = [of != NOT_DONE for of in (of_theirs, of_ours)]
    often = [np.array([(~d).sum(), d.sum()]) for d in done]
    p = chi2_contingency(np.array(often) + 1).pvalue
    # rounding makes single precision equal to double
    kept = [np.round(values[d], 5) for values, d in zip((theirs, ours), done, strict=True)]
    return min(p, ks_2samp(*kept).pvalue) if all(map(len, kept)) else p


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[int, Any, np.ndarray]:
    """Number of axes, transform, and its table."""
    dims, transform = CASES[request.param]
    return dims, transform, their_table(transform, dims, THEIRS)


def test_the_policy_has_all_that_is_random_in_nnunets() -> None:
    assert [len(nnunets(dims)) for dims in (2, 3)] == [11, 11]


def test_draws_are_distributed_as_nnunets(case: tuple[int, Any, np.ndarray]) -> None:
    dims, transform, theirs = case
    (step,) = translate(transform, LABELS).steps
    assert worst(theirs, our_table(step, dims, OURS)) > 1e-3


def broken(step: Step) -> list[Step]:
    """The step with each of its probabilities and ranges changed a little, one at a time."""
    made = []
    if step.probability < 1:
        made.append(dataclasses.replace(step, probability=step.probability + 0.05))
    for field in dataclasses.fields(step.twin):
        value = getattr(step.twin, field.name)
        if field.name.startswith("p_") and isinstance(value, float | int):
            # of what is rare, a part that is a little rarer is not seen
            value = value - 0.3 if value > 0.5 else value + 0.1
        elif isinstance(value, Uniform | AroundOne) and value.low < value.high:
            value = dataclasses.replace(value, high=value.high + 0.25 * (value.high - value.low))
        elif field.name in ("synchronised", "same_axes"):
            value = not value
        else:
            continue
        made.append(dataclasses.replace(step, twin=dataclasses.replace(step.twin, **{field.name: value})))
    return made


def test_a_wrong_probability_range_or_synchronisation_would_be_seen(case: tuple[int, Any, np.ndarray]) -> None:
    dims, transform, theirs = case
    (step,) = translate(transform, LABELS).steps
    for wrong in broken(step):
        if can_be_seen(step, wrong, dims):
            assert worst(theirs, our_table(wrong, dims, OURS)) < 1e-3, wrong


def can_be_seen(step: Step, wrong: Step, dims: int) -> bool:
    """True if a change has an effect: where nothing is drawn, nothing can be wrong."""
    drawn = [one.draw((100, CHANNELS, *(11,) * dims), np.random.default_rng(0)) for one in (step, wrong)]
    return repr(drawn[0]) != repr(drawn[1])


def test_slices_of_a_volume_draw_once() -> None:
    made = nnUNetTrainer.get_training_transforms((6, 6, 6), (-0.5, 0.5), None, None, True)
    step = translate(made, LABELS).steps[0]
    assert isinstance(step.twin, PerSlice)
    flat = nnUNetTrainer.get_training_transforms((6, 6), (-0.5, 0.5), None, None, False)
    theirs = their_table(flat.transforms[0], 2, THEIRS)
    drawn = step.draw((OURS, CHANNELS, 11, 11, 11), np.random.default_rng(0))
    assert worst(theirs, our_spatial_rows(drawn)) > 1e-3
