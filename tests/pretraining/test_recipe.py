"""The recipe is the published one: its sources, its learning rates, its weight decay, its order of images."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("timm", reason="pretraining needs timm: the extra 'pretrain'")

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.pretraining.classifier import SliceMambaClassifier
from nnunetv2_slicemamba.pretraining.images import Images, Loading, find_images, transforms
from nnunetv2_slicemamba.pretraining.processes import Processes
from nnunetv2_slicemamba.pretraining.recipe import Recipe
from nnunetv2_slicemamba.pretraining.training import Training
from tests.pretraining.published_networks import SETTINGS

ARCHITECTURE = {
    key: SETTINGS[key] for key in SETTINGS if key not in ("input_channels", "num_classes", "drop_path_rate")
}
CPU = torch.device("cpu")


def loading_of(images: Images, recipe: Recipe, rank: int = 0, world: int = 1) -> Loading:
    return Loading(images, recipe, Processes(rank, world, CPU), 0)


def training_of(images: Path, recipe: Recipe) -> Training:
    found = find_images(images)
    network = SliceMambaClassifier(found.classes, ARCHITECTURE, [(2, 4)] * 5, 0.2)
    loading = loading_of(found, recipe)
    return Training(network, recipe, found.classes, loading, loading.processes)


def test_every_value_names_its_source() -> None:
    lines = inspect.getsource(Recipe).splitlines()
    named = {found[1] for line in lines if (found := re.match(r"    (\w+): .* = .*  # [\w/.]+\.(py|yaml|md): ", line))}
    assert named == {field.name for field in fields(Recipe)}


def test_learning_rates_rise_and_fall_as_published_scaled_to_the_images_a_step(images: Path) -> None:
    recipe = Recipe(epochs=10, warmup_epochs=2, batch_size=4)
    training = training_of(images, recipe)
    steps, scale = training.loading.steps_per_epoch, 4 / 512

    def rate(step: int) -> float:
        training.schedule.step_update(step)
        rates = {group["lr"] for group in training.state.optimizer.param_groups}
        assert len(rates) == 1, "no layer-wise rates"
        return rates.pop() / scale

    assert rate(0) == pytest.approx(5e-7)
    assert rate(steps) == pytest.approx((5e-7 + 5e-4) / 2)
    assert rate(2 * steps) == pytest.approx(5e-4)
    assert rate(6 * steps) == pytest.approx((5e-4 + 5e-6) / 2)
    assert rate(10 * steps - 1) < 1.1 * 5e-6 + 5e-4 * 1e-2


def test_weights_decay_as_published_matrices_do_norms_and_biases_do_not(images: Path) -> None:
    training = training_of(images, Recipe(epochs=1, warmup_epochs=0, batch_size=4))
    groups = training.state.optimizer.param_groups
    decayed = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in training.state.network.named_parameters():
        expected = 0.0 if parameter.ndim == 1 or name.endswith(".bias") else 0.05
        assert decayed[id(parameter)] == expected, name


def test_stochastic_depth_rises_to_its_rate_over_the_encoders_blocks() -> None:
    network = SliceMambaClassifier(3, ARCHITECTURE, [(2, 4)] * 5, 0.2)
    rates = [block.drop_path.drop_prob for stage in network.encoder.stages for block in stage.blocks]  # type: ignore[union-attr]
    assert rates == pytest.approx([0.0, 0.1, 0.2])


def test_the_classifier_sees_the_slicing() -> None:
    torch.manual_seed(0)
    network = SliceMambaClassifier(3, ARCHITECTURE, [(2, 4), (4, 2), (4, 4), (2, 2), (1, 3)], 0.0)
    assert [block.bss.thickness for stage in network.encoder.stages for block in stage.blocks] == [  # type: ignore[union-attr]
        (2, 4),
        (4, 2),
        (4, 4),
    ]
    assert network(torch.randn(2, 3, 24, 32)).shape == (2, 3)
    assert network.slicing.tolist()[-1] == [1, 3]


def test_every_epoch_sees_every_image_once_in_another_order_shared_among_the_processes(images: Path) -> None:
    found = find_images(images)
    recipe = Recipe(epochs=2, warmup_epochs=0, batch_size=2, accumulate=2)
    orders = [loading_of(found, recipe, rank, 3).order(0) for rank in range(3)]
    seen = sorted(index for order in orders for batch in order for index in batch)
    assert seen == sorted(set(seen))
    assert len(seen) == found.n_train // 12 * 12
    assert loading_of(found, recipe).order(0) != loading_of(found, recipe).order(1)
    # a step's images do not depend on how many processes share it
    alone = loading_of(found, Recipe(epochs=2, warmup_epochs=0, batch_size=12)).order(0)
    for step, together in enumerate(alone):
        shared = [index for order in orders for batch in order[2 * step : 2 * step + 2] for index in batch]
        assert sorted(shared) == sorted(together)


def test_validation_images_are_shared_out_without_repetition(images: Path) -> None:
    found = find_images(images)
    recipe = Recipe(epochs=1, warmup_epochs=0, batch_size=4, image_size=16)
    targets = [
        torch.cat([classes for _, classes in loading_of(found, recipe, rank, 5).validation()]) for rank in range(5)
    ]
    together = torch.cat(targets)
    assert together.bincount().tolist() == [found.n_validation // found.classes] * found.classes


def test_augmented_images_depend_on_seed_epoch_and_image_alone(images: Path) -> None:
    found = find_images(images)
    recipe = Recipe(epochs=3, warmup_epochs=0, batch_size=2, image_size=16)

    def first(epoch: int, step: int, **changes: Any) -> torch.Tensor:
        batch = next(iter(loading_of(found, Recipe(**{**vars(recipe), **changes})).epoch(epoch, step)))
        return batch[0]

    later = [batch for batch, _ in loading_of(found, recipe).epoch(1)]
    torch.manual_seed(99)
    assert torch.equal(first(1, 3), later[3])
    assert not torch.equal(first(2, 3), later[3])
    assert not torch.equal(first(1, 3, seed=5), later[3])


def test_random_augmentation_works_at_every_strength_it_can_draw(images: Path) -> None:
    train, _ = transforms(Recipe(image_size=16))
    operations = [op for step in train.transforms for op in getattr(step, "ops", [])]
    picture = Image.new("RGB", (16, 16), (200, 100, 50))
    assert len(operations) > 10
    for operation in operations:
        operation.prob, operation.magnitude_std = 1.0, 0
        for magnitude in range(11):
            operation.magnitude = magnitude
            assert operation(picture).size == (16, 16), operation.name


@pytest.mark.parametrize("value", [float("nan"), -1.0, 1.0, 2.0])
def test_a_stochastic_depth_that_drops_everything_or_less_than_nothing_is_refused(value: float) -> None:
    with pytest.raises(InputError, match=f"drop_path is {value}, it must be at least 0 and below 1"):
        Recipe(drop_path=value)
