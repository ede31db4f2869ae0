"""The learning rate follows the iteration alone, and weight decay spares what it must."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.lr_schedule.nnUNetTrainerCosAnneal import nnUNetTrainerCosAnneal
from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam
from torch import nn

from nnunetv2_slicemamba.nets import SliceMambaSupernet, SliceMambaUNet
from nnunetv2_slicemamba.trainers import TRAINERS, SliceMambaTrainer
from nnunetv2_slicemamba.trainers.parameter_groups import parameter_groups
from nnunetv2_slicemamba.trainers.schedule import IterationScheduler, WarmupPoly

SETTINGS: dict[str, Any] = {
    "input_channels": 1,
    "num_classes": 2,
    "n_stages": 2,
    "features_per_stage": [8, 16],
    "strides": [[4, 4], [2, 2]],
    "n_blocks_per_stage": [1, 1],
    "n_blocks_per_stage_decoder": [1, 1],
}


def test_the_rate_rises_linearly_then_decays_to_zero() -> None:
    schedule = WarmupPoly(1e-3, warmup=10, total=1000)
    for i in range(10):
        assert schedule(i) == pytest.approx(1e-3 * (i + 1) / 10 * (1 - i / 1000) ** 0.9)
    assert schedule(9) == max(schedule(i) for i in range(1000))
    assert all(later < earlier for earlier, later in pairwise(schedule(i) for i in range(9, 1001)))
    assert schedule(500) == pytest.approx(1e-3 * 0.5**0.9)
    assert schedule(1000) == schedule(1200) == 0


def test_the_rate_is_a_function_of_the_iteration_alone() -> None:
    schedule, other = WarmupPoly(1e-3, 10, 100), WarmupPoly(1e-3, 10, 100)
    forwards = [schedule(i) for i in range(100)]
    assert [other(i) for i in reversed(range(100))] == forwards[::-1]


@pytest.mark.parametrize("bad", [{"warmup": 0, "total": 10}, {"warmup": 1, "total": 0}])
def test_a_schedule_without_iterations_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        WarmupPoly(1e-3, **bad)


def test_an_epoch_starts_with_the_rate_of_its_first_iteration_in_every_group() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "weight_decay": decay} for decay in (0.0, 0.1)]
    optimizer, schedule = torch.optim.AdamW(groups, lr=1.0), WarmupPoly(1e-3, 10, 100)
    scheduler = IterationScheduler(optimizer, schedule, iterations_per_epoch=25)
    scheduler.step(2)
    assert [group["lr"] for group in optimizer.param_groups] == [schedule(50)] * 2
    scheduler.step_iteration(63)
    assert [group["lr"] for group in optimizer.param_groups] == [schedule(63)] * 2


def test_parameters_with_a_rate_of_their_own_keep_it_over_the_whole_schedule() -> None:
    network = SliceMambaUNet(**SETTINGS)
    groups = parameter_groups(network, 0.05, {"A_logs": 0.1, "dt_projs_weight": 0.5})
    optimizer, schedule = torch.optim.AdamW(groups, lr=1.0), WarmupPoly(1e-3, 10, 100)
    IterationScheduler(optimizer, schedule, iterations_per_epoch=25).step_iteration(63)
    factor_of = {id(p): group["lr"] / schedule(63) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            expected = 0.1 if name.endswith("A_logs") else 0.5 if name.endswith("dt_projs_weight") else 1.0
            assert factor_of[id(parameter)] == pytest.approx(expected), name
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert {decays[id(p)] for n, p in network.named_parameters() if n.endswith("A_logs")} == {0.0}
    assert {decays[id(p)] for n, p in network.named_parameters() if n.endswith("dt_projs_weight")} == {0.05}


@pytest.mark.parametrize("kind", [SliceMambaUNet, SliceMambaSupernet])
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_every_trainable_parameter_is_in_exactly_one_group(kind: type[nn.Module], deep_supervision: bool) -> None:
    network = kind(**SETTINGS, deep_supervision=deep_supervision)
    groups = parameter_groups(network, 0.05)
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(p) for p in network.parameters() if p.requires_grad}


def test_scan_parameters_biases_and_norms_do_not_decay_and_matrices_do() -> None:
    network = SliceMambaUNet(**SETTINGS)
    decayed = {id(parameter) for parameter in parameter_groups(network, 0.05)[0]["params"]}
    no_decay_endings = (".bias", "norm.weight", "A_logs", "Ds", "dt_projs_bias")
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert (id(parameter) in decayed) == (not name.endswith(no_decay_endings)), name
    names = {name.rpartition(".bss.")[-1] for name, p in network.named_parameters() if id(p) in decayed}
    assert {"x_proj_weight", "dt_projs_weight", "in_proj.weight", "conv.weight", "out_proj.weight"} <= names


def test_the_trainers_rate_warms_up_over_a_twentieth_and_continues_where_it_was(
    make_trainer: Callable[..., Any], batch_for: Callable[[Any], dict[str, Any]]
) -> None:
    trainer = make_trainer("SliceMambaTrainer_50epochs")
    total = 50 * 250
    schedule = WarmupPoly(1e-3, warmup=total // 20, total=total)
    trainer.current_epoch = 30
    trainer.on_train_epoch_start()
    assert trainer.iteration == 30 * 250
    for i in range(2):
        trainer.train_step(batch_for(trainer))
        rates = {group["lr"] for group in trainer.optimizer.param_groups}
        assert rates == {schedule(30 * 250 + i)}


def test_rates_that_a_subclass_gives_its_groups_follow_the_schedule_in_proportion_and_survive_a_checkpoint(
    make_trainer: Callable[..., Any], batch_for: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slower(SliceMambaTrainer):
        def configure_optimizers(self) -> Any:
            optimizer, scheduler = super().configure_optimizers()
            optimizer.param_groups[0]["lr"] *= 0.1
            return optimizer, scheduler

    monkeypatch.setitem(TRAINERS, "Slower", Slower)  # where make_trainer looks for it
    trained, continued = make_trainer("Slower"), make_trainer("Slower")
    trained.train_step(batch_for(trained))
    trained.save_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    continued.load_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    for trainer in (trained, continued):
        trainer.on_train_epoch_start()
        trainer.train_step(batch_for(trainer))
        rate = trainer.lr_scheduler.schedule(trainer.iteration - 1)
        assert [group["lr"] for group in trainer.optimizer.param_groups] == pytest.approx([0.1 * rate, rate])


def test_warm_up_is_at_most_1250_iterations_and_at_least_one(make_trainer: Callable[..., Any]) -> None:
    assert make_trainer("SliceMambaTrainer").lr_scheduler.schedule.warmup == 1250
    assert make_trainer("SliceMambaTrainer_1epoch").lr_scheduler.schedule.warmup == 1


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step", "ignore:The epoch parameter in")  # nnU-Net's
@pytest.mark.parametrize(
    ("variant", "trainer", "rates"),
    [
        (nnUNetTrainerAdam, "SliceMambaTrainer_5epochs", [1e-3, 1e-3 * 0.8**0.9]),
        (nnUNetTrainerCosAnneal, "SliceMambaSupernetTrainer_5epochs", [1e-3, 1e-3 * (1 + math.cos(math.pi / 5)) / 2]),
    ],
)
def test_nnunets_optimiser_variants_mix_in_and_set_the_rate_by_their_own_schedule(
    variant: type[nnUNetTrainer],
    trainer: str,
    rates: list[float],
    make_trainer: Callable[..., Any],
    batch_for: Callable[[Any], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    mixed = type("Mixed", (variant, TRAINERS[trainer]), {})
    monkeypatch.setitem(TRAINERS, "Mixed", mixed)  # where make_trainer looks for it
    trained, continued = make_trainer("Mixed"), make_trainer("Mixed")
    weight = trained.network.encoder.patch_embedding.proj.weight
    start = weight.detach().clone()

    def steps(trainer: Any, epoch: int) -> list[float]:
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        seen = []
        for _ in range(2):
            trainer.train_step(batch_for(trainer))
            seen += [group["lr"] for group in trainer.optimizer.param_groups]
        return seen

    assert steps(trained, 0) == [rates[0]] * 2
    assert not torch.equal(weight, start)
    trained.save_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    continued.load_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    assert continued.iteration == 0
    assert steps(continued, 1) == pytest.approx([rates[1]] * 2)
    assert continued.iteration == 250 + 2
