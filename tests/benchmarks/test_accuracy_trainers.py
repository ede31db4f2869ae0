"""The trainers that the accuracy benchmark tries out differ from ours in the one setting that their name says."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import accuracy_trainers
import memory_training
from memory_training import Shape, describe, make_batch, plans_of, use_folders

from nnunetv2_slicemamba.trainers import TRAINERS
from nnunetv2_slicemamba.trainers.schedule import IterationScheduler

pytestmark = pytest.mark.slow  # a benchmark's machinery, tested by `make test-all`

SHAPE = Shape("S", (32, 32), 2)
PLAIN = "SliceMambaTrainer_20epochs"
Make = Callable[[str], Any]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """make(name): the trainer with network and optimiser, the same weights each time, and iteration 0's rate."""
    for name in memory_training.FOLDERS:
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    use_folders(tmp_path)
    data = tmp_path / "nnUNet_preprocessed" / memory_training.DATASET / "measured"
    data.mkdir(parents=True)
    (data / "case.b2nd").touch()

    def trainer(name: str) -> Any:
        torch.manual_seed(0)
        cls = {**TRAINERS, **accuracy_trainers.CANDIDATES}[name]
        plans = json.loads(json.dumps(plans_of(SHAPE))) | {"continue_training": False}
        made = cls(plans, "measured", 0, describe(1, 2), torch.device("cpu"))
        made.initialize()
        made.network.train()
        return made

    return trainer


def rates(trainer: Any, iterations: list[int]) -> list[float]:
    found = []
    for iteration in iterations:
        trainer.lr_scheduler.step(iteration // trainer.num_iterations_per_epoch)
        if isinstance(trainer.lr_scheduler, IterationScheduler):
            trainer.lr_scheduler.step_iteration(iteration)
        found.append(trainer.optimizer.param_groups[0]["lr"])
    return found


def steps(trainer: Any, n: int, seed: int = 0) -> None:
    batch = make_batch(trainer)
    for i in range(n):
        torch.manual_seed(seed + i)  # stochastic depth
        trainer.train_step(batch)


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.network.named_parameters()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("name", "rate", "decay", "warm_up"),
    [
        ("SliceMambaTrainerRate3e4", 3e-4, 1e-2, 250),
        ("SliceMambaTrainerRate5e4", 5e-4, 1e-2, 250),
        ("SliceMambaTrainerRate2e3", 2e-3, 1e-2, 250),
        ("SliceMambaTrainerDecay5e2", 1e-3, 5e-2, 250),
        ("SliceMambaTrainerNoWarmUp", 1e-3, 1e-2, 1),
        ("SliceMambaTrainerWarmUp1000", 1e-3, 1e-2, 1000),
        ("SliceMambaTrainerEma", 1e-3, 1e-2, 250),
        (PLAIN, 1e-3, 1e-2, 250),
    ],
)
def test_rate_decay_and_warm_up_are_what_the_name_says(
    make: Make, name: str, rate: float, decay: float, warm_up: int
) -> None:
    trainer = make(name)
    assert trainer.num_epochs == 20
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    assert [group["weight_decay"] for group in trainer.optimizer.param_groups] == [decay, 0.0]
    expected = [rate * min(1, (i + 1) / warm_up) * (1 - i / 5000) ** 0.9 for i in (0, 249, 999, 4000)]
    assert rates(trainer, [0, 249, 999, 4000]) == pytest.approx(expected)


def test_sgd_is_nnunets(make: Make) -> None:
    trainer = make("SliceMambaTrainerSgd")
    assert type(trainer.optimizer) is torch.optim.SGD
    (group,) = trainer.optimizer.param_groups
    assert {key: group[key] for key in ("weight_decay", "momentum", "nesterov")} == {
        **{"weight_decay": 3e-5, "momentum": 0.99, "nesterov": True}
    }
    # the same within an epoch
    assert rates(trainer, [0, 249, 250, 4750]) == pytest.approx([1e-2, 1e-2, 1e-2 * 0.95**0.9, 1e-2 * 0.05**0.9])
    before = weights(trainer)
    steps(trainer, 1)
    assert not same(before, weights(trainer))


@pytest.mark.parametrize(
    ("name", "limit"), [(PLAIN, 12.0), ("SliceMambaTrainerClip1", 1.0), ("SliceMambaTrainerNoClip", float("inf"))]
)
def test_gradients_are_clipped_where_the_name_says_and_nowhere_else(make: Make, name: str, limit: float) -> None:
    trainer, build = make(name), torch.nn.utils.clip_grad_norm_
    # far above every limit
    loss = trainer.loss
    trainer.loss = lambda *given: 1e4 * loss(*given)
    steps(trainer, 1)
    gradients = [p.grad for p in trainer.network.parameters() if p.grad is not None]
    norm = float(torch.stack([g.norm() for g in gradients]).norm())
    if limit < float("inf"):
        assert norm == pytest.approx(limit, rel=1e-3)
    else:
        assert norm > 100
    assert torch.nn.utils.clip_grad_norm_ is build


def test_every_second_iteration_has_slicings_drawn_for_it_alone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, used = make("SliceMambaTrainerPaths"), []
    network = trainer.sliced_network
    own = ((2, 4),) * network.n_blocks
    network.set_slicing(own)
    network.register_forward_hook(lambda *_: used.append(network.get_slicing()))
    steps(trainer, 6)
    assert used[0::2] == [own] * 3
    assert len({own, *used[1::2]}) == 4
    assert {thickness for slicing in used[1::2] for thickness in slicing} == {(2, 2), (2, 4), (4, 2), (4, 4)}
    assert network.get_slicing() == own
    again = make("SliceMambaTrainerPaths")
    again.sliced_network.register_forward_hook(lambda *_: used.append(again.sliced_network.get_slicing()))
    again.iteration = 3
    steps(again, 1)
    assert used[-1] == used[3]
    monkeypatch.setattr(trainer, "loss", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    trainer.iteration = 7
    with pytest.raises(RuntimeError, match="iteration 7"):
        steps(trainer, 1)
    assert network.get_slicing() == own


@pytest.mark.parametrize(("name", "pooled"), [(PLAIN, True), ("SliceMambaTrainerSampleDice", False)])
def test_a_small_lesion_that_is_lost_costs_half_the_dice_only_where_samples_are_averaged(
    make: Make, name: str, pooled: bool
) -> None:
    trainer = make(name)
    # the lesion of the first sample is found as a whole, the small one of the second is not
    target, said = torch.zeros(2, 1, 32, 32), torch.zeros(2, 2, 32, 32)
    target[0, :, 4:28, 4:28] = target[1, :, 8:10, 8:10] = 1
    said[0, 1] = 20 * target[0, 0] - 10
    said[1, 1] = -10
    lesion, truth = said.softmax(1)[:, 1].flatten(1), target.flatten(1)
    hit, sizes = (lesion * truth).sum(1), (lesion + truth).sum(1)
    dice = 2 * hit.sum() / sizes.sum() if pooled else (2 * hit / sizes).mean()
    assert float(dice) == pytest.approx(0.996 if pooled else 0.5, abs=2e-3)
    expected = torch.nn.functional.cross_entropy(said, target[:, 0].long()) - dice
    # as built for the training, for an output of every resolution, of which each would have the same loss
    outputs = [said] * len(trainer._get_deep_supervision_scales())
    assert float(trainer.loss(outputs, [target] * len(outputs))) == pytest.approx(float(expected), abs=1e-4)
    # the plans that are written into the results, and what else reads them
    assert trainer.configuration_manager.batch_dice is True
    assert trainer.plans_manager.plans["configurations"]["measured"]["batch_dice"] is True


def test_without_deep_supervision_there_is_one_output(make: Make) -> None:
    trainer = make("SliceMambaTrainerNoDeep")
    assert trainer._get_deep_supervision_scales() is None
    steps(trainer, 1)


def test_the_average_follows_the_weights_and_never_leads_them(make: Make) -> None:
    plain, averaging = make(PLAIN), make("SliceMambaTrainerEma")
    assert same(weights(plain), weights(averaging))
    steps(plain, 4)
    steps(averaging, 4)
    assert same(weights(plain), weights(averaging))  # the training itself is the same
    with averaging.averaged():
        average = weights(averaging)
    assert same(weights(plain), weights(averaging))
    assert not same(average, weights(averaging))
    # the second and later steps are averaged with (1 + i) / (10 + i) of what was
    again = make(PLAIN)
    expected: dict[str, torch.Tensor] = {}
    for i in range(4):
        steps(again, 1, seed=i)
        decay = (2 + i) / (11 + i)
        now = weights(again)
        expected = {name: decay * expected[name] + (1 - decay) * now[name] for name in now} if expected else now
    for name, value in expected.items():
        if averaging.optimizer.state.get(dict(averaging.network.named_parameters())[name]):
            assert torch.allclose(average[name], value, atol=1e-6), name


def test_a_checkpoint_predicts_with_the_average_and_continues_with_the_weights(make: Make, tmp_path: Path) -> None:
    trainer, file = make("SliceMambaTrainerEma"), tmp_path / "checkpoint_latest.pth"
    steps(trainer, 3)
    with trainer.averaged():
        average = weights(trainer)
    trainer.save_checkpoint(str(file))
    saved = torch.load(file, weights_only=False)["network_weights"]
    assert same(average, saved)
    again = make("SliceMambaTrainerEma")
    again.load_checkpoint(str(file))
    assert same(weights(trainer), weights(again))
    again.iteration = trainer.iteration
    steps(trainer, 1)
    steps(again, 1)
    assert same(weights(trainer), weights(again))
    with trainer.averaged(), again.averaged():
        assert same(weights(trainer), weights(again))
        assert not same(weights(trainer), average)


def test_validation_after_an_epoch_sees_the_average(make: Make) -> None:
    trainer = make("SliceMambaTrainerEma")
    steps(trainer, 2)
    trained = weights(trainer)
    with trainer.averaged():
        average = weights(trainer)
    trainer.on_validation_epoch_start()
    assert same(weights(trainer), average)
    counts = {"loss": np.float32(1), **{key: np.ones(1) for key in ("tp_hard", "fp_hard", "fn_hard")}}
    trainer.on_validation_epoch_end([counts, counts])
    assert same(weights(trainer), trained)
