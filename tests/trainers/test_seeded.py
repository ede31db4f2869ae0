"""With SLICEMAMBA_SEED two trainings are one: weights, optimiser and losses, bit for bit, and so is a continued one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

from nnunetv2_slicemamba.augmentation.seeds import (
    Use,
    generators_seeded,
    seed_from_environment,
    seed_generators,
    sequence,
)
from nnunetv2_slicemamba.trainers import TRAINERS
from nnunetv2_slicemamba.trainers.seeded import RepeatableCrossEntropy, made_repeatable
from nnunetv2_slicemamba.trainers.supernet import SliceMambaSupernetTrainer
from tests.trainers.short_trainings import assert_same, make, train

NAMES = ("nnUNetTrainerGPUAugment_5epochs", "SliceMambaSupernetTrainer_5epochs")


@pytest.fixture
def run(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """run(name, seed=5, processes=0, stopped=False, continued=False): the checkpoint of a short training."""

    def run_one(name: str, seed: int | None = 5, processes: int = 0, **kind: bool) -> dict[str, Any]:
        monkeypatch.setenv("SLICEMAMBA_SEED", "" if seed is None else str(seed))
        monkeypatch.setenv("nnUNet_n_proc_DA", str(processes))
        return train(make(TRAINERS[name]), **kind)

    return run_one


@pytest.mark.parametrize("name", NAMES)
def test_two_trainings_with_one_seed_are_the_same_with_any_number_of_processes(
    name: str, run: Callable[..., Any]
) -> None:
    one = run(name)
    assert_same(one, run(name, processes=3))
    other = run(name, seed=6)
    assert other["logging"]["train_losses"] != one["logging"]["train_losses"]


@pytest.mark.usefixtures("on_cpu")
def test_augmentation_on_the_device_is_seeded_too(run: Callable[..., Any]) -> None:
    one = run(NAMES[0])
    assert_same(one, run(NAMES[0], processes=3))
    assert run(NAMES[0], seed=6)["logging"]["train_losses"] != one["logging"]["train_losses"]


@pytest.mark.parametrize("name", NAMES)
def test_a_continued_training_is_the_one_that_was_never_stopped(name: str, run: Callable[..., Any]) -> None:
    whole = run(name)
    run(name, stopped=True, processes=1)
    assert_same(whole, run(name, continued=True))


def test_a_continued_training_augmented_on_the_device(run: Callable[..., Any], on_cpu: None) -> None:
    whole = run(NAMES[0])
    run(NAMES[0], stopped=True, processes=1)
    assert_same(whole, run(NAMES[0], continued=True))


@pytest.mark.usefixtures("on_cpu")
def test_without_a_seed_no_two_trainings_are_the_same(run: Callable[..., Any]) -> None:
    losses = [run(NAMES[0], seed=None)["logging"]["train_losses"] for _ in range(2)]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("ignored", [None, 2])
def test_the_repeatable_loss_is_nnunets(ignored: int | None) -> None:
    loss = DC_and_CE_loss({}, {}, ignore_label=ignored)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 8, 9, generator=generator, requires_grad=True)
    target = torch.randint(3, (2, 1, 8, 9), generator=generator).to(torch.int16)
    expected = loss.ce(logits, target[:, 0]), loss.ce(logits, target)
    repeatable = made_repeatable(DeepSupervisionWrapper(loss, (1.0,))).loss.ce
    assert isinstance(repeatable, RepeatableCrossEntropy)
    for given, value in zip((target[:, 0], target), expected, strict=True):
        got = repeatable(logits, given)
        assert float(got) == pytest.approx(float(value), rel=1e-5)
        gradients = [torch.autograd.grad(one, logits, retain_graph=True)[0] for one in (got, value)]
        assert torch.allclose(*gradients, atol=1e-7)


def test_paths_are_drawn_from_the_seed(make_trainer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def paths() -> list[Any]:
        trainer = make_trainer("SliceMambaSupernetTrainer")
        return [trainer.draw_path(iteration) for iteration in range(4)]

    unset = paths()
    monkeypatch.setenv("SLICEMAMBA_SEED", str(SliceMambaSupernetTrainer.path_seed))
    assert paths() == unset
    monkeypatch.setenv("SLICEMAMBA_SEED", "1")
    assert paths() != unset


def test_pytorchs_settings_are_put_back(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def settings() -> tuple[bool, ...]:
        cudnn = torch.backends.cudnn
        return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark

    before = settings()
    monkeypatch.setenv("SLICEMAMBA_SEED", "5")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    trainer = make(TRAINERS[NAMES[0]])
    train(trainer)
    assert settings() == before
    assert "drawn from SLICEMAMBA_SEED=5" in Path(trainer.log_file).read_text()


@pytest.mark.parametrize("value", ["-1", "1.5", "seven", "²"])
def test_a_seed_is_a_natural_number(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLICEMAMBA_SEED", value)
    with pytest.raises(ValueError, match="set it to a number from 0 on, or unset it"):
        seed_from_environment()


def drawn() -> tuple[float, ...]:
    return float(np.random.rand()), float(torch.rand(())), float(torch.rand(()))  # noqa: NPY002 - the global generator


def test_seeds_depend_on_all_that_they_are_for() -> None:
    seen = set()
    for place in [
        (0, Use.STEPS, 0, 0),
        (1, Use.STEPS, 0, 0),
        (0, Use.WEIGHTS, 0, 0),
        (0, Use.STEPS, 1, 0),
        (0, Use.STEPS, 0, 1),
    ]:
        seed_generators(sequence(*place))
        first = drawn()
        with generators_seeded(sequence(*place)):
            assert drawn() == first
        seen.add(first)
    assert len(seen) == 5


def test_generators_go_on_where_they_stood() -> None:
    seed_generators(sequence(0, Use.STEPS))
    expected = [drawn(), drawn()]
    seed_generators(sequence(0, Use.STEPS))
    got = [drawn()]
    with generators_seeded(sequence(1, Use.STEPS)):
        drawn()
    assert [*got, drawn()] == expected
