"""Variants are nnU-Net trainers of their own, and trainers refuse plans that are not ours."""

from __future__ import annotations

import importlib
import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

import nnunetv2_slicemamba.trainers as package
from nnunetv2_slicemamba.trainers import TRAINERS, SliceMambaSupernetTrainer, SliceMambaTrainer

BASES = (
    "SliceMambaTrainer",
    "SliceMambaInheritTrainer",
    "SliceMambaSupernetTrainer",
    "SliceMambaSharedSupernetTrainer",
)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(
    "suffix", ["", "NoDeepSupervision", "_1epoch", "_5epochs", "_20epochs", "_50epochs", "_100epochs", "_250epochs"]
)
def test_every_documented_variant_exists(base: str, suffix: str) -> None:
    assert issubclass(TRAINERS[base + suffix], TRAINERS[base])


@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainer_is_an_importable_picklable_class_under_its_name(name: str) -> None:
    trainer = TRAINERS[name]
    assert trainer.__name__ == name
    assert getattr(package, name) is trainer
    assert getattr(importlib.import_module(trainer.__module__), name) is trainer
    assert pickle.loads(pickle.dumps(trainer)) is trainer
    assert issubclass(trainer, nnUNetTrainer)
    # nnU-Net splits its result folders at the double underscore
    assert "__" not in name


@pytest.mark.parametrize("name", TRAINERS)
def test_no_trainer_adds_constructor_arguments(name: str) -> None:
    # nnU-Net rebuilds trainers from the arguments that it knows
    assert list(inspect.signature(TRAINERS[name]).parameters) == list(inspect.signature(nnUNetTrainer).parameters)


@pytest.mark.parametrize("name", [name for name in TRAINERS if name.endswith("epochs")])
def test_variants_train_for_as_many_epochs_as_their_names_say(name: str, make_trainer: Any) -> None:
    trainer = make_trainer(name, initialize=False)
    assert trainer.num_epochs == int(name.rpartition("_")[2].removesuffix("epochs"))
    assert (trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (250, 50)
    assert trainer.enable_deep_supervision


def test_the_plain_trainers_train_as_long_as_nnunets() -> None:
    for trainer in (SliceMambaTrainer, SliceMambaSupernetTrainer):
        assert (trainer.epochs, trainer.iterations_per_epoch) == (1000, 250)


@pytest.mark.parametrize("name", BASES)
def test_plans_of_another_network_are_refused_with_the_remedy(name: str, workspace: Path) -> None:
    plans, plans_name = plan_experiment_dataset(901)
    plans["continue_training"] = False
    description = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "ball": 1}, "file_ending": ".png"}
    trainer = TRAINERS[name](plans, "2d", 0, description, torch.device("cpu"))
    with pytest.raises(ValueError, match="SliceMamba's trainers need plans of a SliceMamba planner") as caught:
        trainer.initialize()
    assert plans_name in str(caught.value)
    assert "PlainConvUNet" in str(caught.value)
    assert "'slicemamba plan'" in str(caught.value)
