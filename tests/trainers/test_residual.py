"""A residual network is trained by a recipe of its own, and by another where the trainer says so."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_slicemamba.nets import SliceMambaResidualSupernet, SliceMambaResidualUNet
from nnunetv2_slicemamba.trainers import TRAINERS
from nnunetv2_slicemamba.trainers.recipe import RECIPES
from nnunetv2_slicemamba.trainers.schedule import WarmupCosine, WarmupPoly
from tests.trainers.short_trainings import RESIDUAL

DISKS = "Dataset901_Disks"

SGD = {"initial_lr": 1e-2, "weight_decay": 3e-5}  # as a class with that optimizer_name gets them


@pytest.fixture
def make(workspace: Path, plans: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """make(name, arch={}, **settings): an initialised trainer of a small residual network."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    description = json.loads((workspace / "nnUNet_preprocessed" / DISKS / "dataset.json").read_text())

    def make_one(name: str, arch: dict[str, Any] | None = None, **settings: Any) -> Any:
        given = json.loads(json.dumps(plans)) | {"continue_training": False}
        architecture = {**RESIDUAL, "arch_kwargs": RESIDUAL["arch_kwargs"] | (arch or {})}
        given["configurations"]["2d"]["architecture"] = json.loads(json.dumps(architecture))
        torch.manual_seed(0)
        trainer = TRAINERS[name](given, "2d", 0, description, torch.device("cpu"))
        for key, value in settings.items():
            assert hasattr(trainer, key)
            setattr(trainer, key, value)
        trainer.initialize()
        return trainer

    return make_one


def test_its_own_recipe_is_adamw_with_a_cosine(make: Callable[..., Any]) -> None:
    trainer = make("SliceMambaTrainer_20epochs")
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    assert trainer.lr_scheduler.schedule == WarmupCosine(3e-4, warmup=250, total=5000)
    assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {0.0, 1e-2}


def test_with_sgd_optimiser_decay_and_rate_are_nnunets(
    make: Callable[..., Any], batch_for: Callable[[Any], dict[str, Any]]
) -> None:
    trainer = make("SliceMambaTrainer_20epochs", **SGD, optimizer_name="sgd")
    assert isinstance(trainer.network, SliceMambaResidualUNet)
    trainer.num_epochs = 20
    stock = nnUNetTrainer.configure_optimizers.__get__(trainer)
    trainer.initial_lr, trainer.weight_decay = 1e-2, 3e-5  # nnU-Net's, as its constructor sets them
    optimizer, scheduler = stock()
    assert type(trainer.optimizer) is type(optimizer)
    for group in trainer.optimizer.param_groups:
        for key in ("momentum", "nesterov", "dampening"):
            assert group[key] == optimizer.param_groups[0][key]
    decays = {id(p): group["weight_decay"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert decays == {id(p): 3e-5 for p in trainer.network.parameters()}
    for epoch in (0, 7, 19):
        scheduler.step(epoch)
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        for _ in range(2):  # an epoch has one rate
            trainer.train_step(batch_for(trainer))
            for group in trainer.optimizer.param_groups:
                assert group["lr"] == pytest.approx(optimizer.param_groups[0]["lr"])


def test_a_trainer_may_choose_another_recipe(make: Callable[..., Any]) -> None:
    adamw = {"optimizer_name": "adamw", "initial_lr": 3e-4, "weight_decay": 1e-2, "schedule": "cosine"}
    trainer = make("SliceMambaTrainer_20epochs", **adamw, decays_all=False, warmup_iterations=250)
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    assert trainer.lr_scheduler.schedule == WarmupCosine(3e-4, warmup=250, total=5000)
    assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {0.0, 1e-2}
    derived = type("SliceMambaOwnTrainer", (TRAINERS["SliceMambaTrainer"],), {"optimizer_name": "adamw"})
    TRAINERS[derived.__name__] = derived
    try:
        own = make(derived.__name__)
    finally:
        del TRAINERS[derived.__name__]
    # with the optimiser come its rate and schedule
    assert own.lr_scheduler.schedule == WarmupPoly(RECIPES["adamw"].learning_rate, 1250, 250_000)
    with pytest.raises(
        ValueError, match="optimizer_name 'muon' does not exist; give one of adamw, adamw-cosine, sgd, sgd-adamw"
    ):
        make("SliceMambaTrainer", optimizer_name="muon")
    with pytest.raises(ValueError, match="schedule 'linear' does not exist; give one of poly, poly-epochs, cosine"):
        make("SliceMambaTrainer", schedule="linear")


def test_blocks_may_have_an_optimiser_of_their_own(
    make: Callable[..., Any], batch_for: Callable[[Any], dict[str, Any]], tmp_path: Path
) -> None:
    trainer, other = (make("SliceMambaTrainer_20epochs", **SGD, optimizer_name="sgd-adamw") for _ in range(2))
    sgd, adamw = trainer.optimizer.optimizers
    assert (type(sgd), type(adamw)) == (torch.optim.SGD, torch.optim.AdamW)
    in_blocks = {p for block in trainer.network.block_positions() for p in block.parameters()}
    assert {p for group in adamw.param_groups for p in group["params"]} == in_blocks
    assert {p for group in sgd.param_groups for p in group["params"]} == {*trainer.network.parameters()} - in_blocks
    trainer.current_epoch = 7
    trainer.on_train_epoch_start()
    trainer.train_step(batch_for(trainer))
    left = (1 - 7 / 20) ** 0.9
    assert [group["lr"] for group in sgd.param_groups] == pytest.approx([1e-2 * left] * len(sgd.param_groups))
    assert [group["lr"] for group in adamw.param_groups] == pytest.approx([3e-4 * left] * len(adamw.param_groups))
    assert {group["weight_decay"] for group in adamw.param_groups} == {0.0, 1e-2}
    # Adam's first step is the rate itself, from zero; the decay has nothing to take
    (block, _) = trainer.network.block_positions()
    moved = block.bss.out_proj.weight.abs()
    torch.testing.assert_close(moved.median(), torch.tensor(3e-4 * left), rtol=0.05, atol=0)

    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    other.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    for one in (trainer, other):
        one.current_epoch = 8
        one.on_train_epoch_start()
        one.train_step(batch_for(one))
    for (name, value), again in zip(trainer.network.named_parameters(), other.network.parameters(), strict=True):
        assert torch.equal(value, again), name


def test_a_cosine_falls_from_the_rate_to_zero_behind_its_warm_up() -> None:
    schedule = WarmupCosine(1.0, warmup=10, total=100)
    assert [schedule(i) for i in (0, 4)] == pytest.approx(
        [0.1 * (1 + math.cos(0)) / 2, 0.5 * (1 + math.cos(0.04 * math.pi)) / 2]
    )
    assert schedule(50) == pytest.approx(0.5)
    assert schedule(100) == schedule(120) == pytest.approx(0)


@pytest.mark.parametrize("name", ["SliceMambaTrainer_1epoch", "SliceMambaSupernetTrainer_1epoch"])
def test_networks_and_supernets_learn_at_nnunets_scales(
    name: str, make: Callable[..., Any], batch_for: Callable[[Any], dict[str, Any]]
) -> None:
    trainer = make(name)
    kind = SliceMambaResidualSupernet if "Supernet" in name else SliceMambaResidualUNet
    assert isinstance(trainer.network, kind)
    assert trainer._get_deep_supervision_scales() == trainer.network.output_scales == [[1.0, 1.0], [0.5, 0.5]]
    batch = batch_for(trainer)
    losses = [float(trainer.train_step(batch)["loss"]) for _ in range(18)]
    assert losses[-1] < losses[0] - 0.02


def test_without_blocks_no_slicing_is_asked_for(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    none = {"n_blocks_per_stage": [0, 0, 0], "n_blocks_per_stage_decoder": [0, 0]}
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", lambda self: None)
    make("SliceMambaTrainer_1epoch", none).on_train_start()
    with pytest.raises(ValueError, match="there is no supernet to inherit from: train it with SliceMambaTrainer"):
        make("SliceMambaInheritTrainer_1epoch", none).on_train_start()
    with pytest.raises(ValueError, match="no S3 blocks, so there is no slicing to search"):
        make("SliceMambaSupernetTrainer_1epoch", none)
    with pytest.raises(FileNotFoundError, match="slicemamba slicing"):
        make("SliceMambaTrainer_1epoch").on_train_start()


def test_a_training_is_not_continued_with_another_kind_of_optimiser(make: Callable[..., Any]) -> None:
    began = make("SliceMambaTrainer_20epochs", **SGD, optimizer_name="sgd")
    latest = Path(began.output_folder) / "checkpoint_latest.pth"
    latest.parent.mkdir(parents=True, exist_ok=True)
    began._best_ema = 0.25
    began.save_checkpoint(str(latest))
    trainer = make("SliceMambaTrainer_20epochs")
    trainer.load_checkpoint(str(latest))
    with pytest.raises(
        ValueError, match=r'began with SGD, SliceMambaTrainer_20epochs has AdamW: .*name = "sgd", after'
    ):
        trainer.on_train_start()
    # what is trained can be validated all the same
    assert trainer.current_epoch == 1
    for name, weight in began.network.state_dict().items():
        assert torch.equal(trainer.network.state_dict()[name], weight)
    mixed = make("SliceMambaTrainer_20epochs", **SGD, optimizer_name="sgd-adamw")
    mixed.load_checkpoint(str(latest))
    assert "has AdamW and SGD" in mixed.refusal
    began.load_checkpoint(str(latest))
    assert began.refusal is None
    trainer.save_checkpoint(str(latest))
    began.load_checkpoint(str(latest))
    assert 'optimizer_name = "adamw" or "adamw-cosine"' in began.refusal
