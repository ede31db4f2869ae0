"""The supernet's trainer follows one sequence of paths, whoever runs it, and validates on one path."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.names import final_trainer_name, names_supernet_trainer
from nnunetv2_slicemamba.nets import SliceMambaSupernet
from nnunetv2_slicemamba.trainers import TRAINERS
from nnunetv2_slicemamba.trainers.supernet import path_generator

NAME = "SliceMambaSupernetTrainer_1epoch"


def draw(seed: int, iteration: int, blocks: int = 22) -> tuple[int, ...]:
    return tuple(torch.randint(4, (blocks,), generator=path_generator(seed, iteration)).tolist())


def test_a_path_is_a_function_of_seed_and_iteration_alone() -> None:
    paths = [draw(1, i) for i in range(50)]
    torch.manual_seed(5)
    assert [draw(1, i) for i in reversed(range(50))] == paths[::-1]
    assert len(set(paths)) == 50
    assert not {draw(2, i) for i in range(50)} & set(paths)


def test_paths_are_uniform_over_the_iterations_of_a_training() -> None:
    # every iteration has a generator of its own, whose first draws must not follow its seed
    paths = torch.tensor([draw(12345, i) for i in range(2000)])
    for position in (0, 1, 10, 21):
        now, then = paths[1:, position], paths[:-1, position]
        assert chisquare(torch.bincount(now, minlength=4).numpy()).pvalue > 1e-4
        assert chisquare(torch.bincount(4 * now + then, minlength=16).numpy()).pvalue > 1e-4


def test_every_rank_and_every_continued_run_follow_the_same_paths(
    make_trainer: Callable[..., Any], batch_for: Callable[[Any], dict[str, Any]]
) -> None:
    def paths(trainer: Any, epoch: int, steps: int) -> list[tuple[int, ...]]:
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        taken = []
        for _ in range(steps):
            trainer.train_step(batch_for(trainer))
            taken.append(trainer.supernet.get_architecture())
        return taken

    one, other = make_trainer(NAME), make_trainer(NAME)
    one.num_iterations_per_epoch = other.num_iterations_per_epoch = 2
    torch.manual_seed(77)
    whole = paths(one, 0, 2) + paths(one, 1, 2)
    torch.manual_seed(1)
    assert paths(other, 1, 2) == whole[2:]
    assert len(set(whole)) == 4


def test_a_step_changes_the_path_and_no_other_candidate(
    make_trainer: Callable[..., Any], batch_for: Callable[[Any], dict[str, Any]]
) -> None:
    trainer = make_trainer(NAME)
    before = {name: value.clone() for name, value in trainer.supernet.state_dict().items()}
    trainer.train_step(batch_for(trainer))
    path = trainer.supernet.get_architecture()
    after = trainer.supernet.state_dict()
    for (position, block), picked in zip(trainer.supernet.named_block_positions(), path, strict=True):
        for index, candidate in enumerate(block):
            changed = any(
                not torch.equal(after[f"{position}.{index}.{name}"], before[f"{position}.{index}.{name}"])
                for name in candidate.state_dict()
            )
            assert changed == (index == picked), (position, index)


def test_validation_uses_one_path_throughout_and_the_checkpoint_keeps_it(
    make_trainer: Callable[..., Any], batch_for: Callable[[Any], dict[str, Any]], tmp_path: Path
) -> None:
    trainer = make_trainer(NAME)
    trainer.on_train_start()
    chosen = tuple(trainer.supernet.state_dict()["architecture"].tolist())
    assert len(set(chosen)) > 1  # drawn, not the first candidate everywhere
    for _ in range(2):
        trainer.on_train_epoch_start()
        trainer.train_step(batch_for(trainer))
        assert trainer.supernet.get_architecture() != chosen
        trainer.on_validation_epoch_start()
        assert trainer.supernet.get_architecture() == chosen
    trainer.train_step(batch_for(trainer))
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))

    # another fold, another machine: the same path
    torch.manual_seed(9)
    other = make_trainer(NAME)
    other.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    assert other.supernet.get_architecture() == chosen
    # continued training keeps the stored path, whatever a new one would draw
    other.supernet.set_architecture((3,) * 7)
    other.on_train_start()
    assert other.current_epoch > 0
    assert other.supernet.get_architecture() == (3,) * 7


def test_every_fold_validates_on_the_same_path(make_trainer: Callable[..., Any]) -> None:
    stored = []
    for seed in (1, 2):
        trainer = make_trainer(NAME)
        torch.manual_seed(seed)
        trainer.on_train_start()
        stored.append(trainer.supernet.state_dict()["architecture"].tolist())
    assert stored[0] == stored[1]


@pytest.mark.parametrize(("name", "shared"), [(NAME, False), ("SliceMambaSharedSupernetTrainer_1epoch", True)])
def test_plans_of_the_final_network_give_the_supernet(
    name: str, shared: bool, make_trainer: Callable[..., Any]
) -> None:
    trainer = make_trainer(name)
    assert isinstance(trainer.network, SliceMambaSupernet)
    assert trainer.network.share_weights is shared
    # as nnU-Net's predictor builds it
    built = type(trainer).build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, 1, 2, enable_deep_supervision=False
    )
    assert isinstance(built, SliceMambaSupernet)
    built.load_state_dict(trainer.network.state_dict())


@pytest.mark.parametrize(("asked", "final"), [(None, False), ("false", False), ("1", True)])
def test_the_final_network_is_compiled_on_request_only_and_the_supernet_never(
    asked: str | None, final: bool, make_trainer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if asked is None:
        monkeypatch.delenv("nnUNet_compile", raising=False)
    else:
        monkeypatch.setenv("nnUNet_compile", asked)
    compiled = {}
    for name in (NAME, "SliceMambaTrainer_1epoch"):
        trainer = make_trainer(name, initialize=False)
        trainer.device = torch.device("cuda")
        compiled[name] = trainer._do_i_compile()
    assert compiled == {NAME: False, "SliceMambaTrainer_1epoch": final}


def test_a_trainers_name_says_its_role_and_the_final_trainer_that_goes_with_a_supernets() -> None:
    for name, trainer in TRAINERS.items():
        assert names_supernet_trainer(name) == (trainer.role == "supernet")
        if trainer.role == "supernet":
            final = final_trainer_name(name)
            assert TRAINERS[final].role == "final"
            assert final in TRAINERS
            assert final.removeprefix("SliceMambaTrainer") == name.rpartition("SupernetTrainer")[2]


@pytest.mark.parametrize(
    ("variable", "read"),
    [("", "SliceMambaTrainer_1epoch"), ("SliceMambaInheritTrainer_20epochs", "SliceMambaInheritTrainer_20epochs")],
)
def test_a_cascades_supernet_reads_the_predictions_of_the_final_trainer_that_is_named(
    variable: str,
    read: str,
    make_trainer: Callable[..., Any],
    plans: dict[str, Any],
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLICEMAMBA_PREVIOUS_STAGE", variable)
    plans["configurations"]["3d_lowres"] = json.loads(json.dumps(plans["configurations"]["2d"]))
    plans["configurations"]["2d"]["previous_stage"] = "3d_lowres"
    dataset = "Dataset901_Disks"
    predictions = workspace / "nnUNet_results" / dataset / f"{read}__nnUNetSliceMambaSPlans__3d_lowres"
    predictions = predictions / "predicted_next_stage" / "2d"
    with pytest.raises(FileNotFoundError) as caught:
        make_trainer(NAME)
    first_stage = f"nnUNetv2_train {dataset} 3d_lowres FOLD -tr {read} -p nnUNetSliceMambaSPlans"
    for words in (f"there is no {predictions}", first_stage, "SLICEMAMBA_PREVIOUS_STAGE"):
        assert words in str(caught.value)

    predictions.mkdir(parents=True)
    assert make_trainer(NAME).folder_with_segs_from_previous_stage == str(predictions)


def test_a_cascade_in_which_a_first_stages_prediction_is_missing_is_not_trained(
    make_trainer: Callable[..., Any], plans: dict[str, Any]
) -> None:
    """nnU-Net would miss it in a worker, and say that one is no longer alive."""
    plans["configurations"]["3d_lowres"] = json.loads(json.dumps(plans["configurations"]["2d"]))
    plans["configurations"]["2d"]["previous_stage"] = "3d_lowres"
    trainer = make_trainer("SliceMambaTrainer_1epoch")
    folder = Path(trainer.folder_with_segs_from_previous_stage)
    folder.mkdir(parents=True)
    for case in range(4):
        (folder / f"case_{case}.b2nd").touch()
    with pytest.raises(InputError, match="1 of 5 cases have no prediction of the first stage in .*: case_4;"):
        trainer.on_train_start()
    (folder / "case_4.b2nd").touch()
    assert len(trainer.get_tr_and_val_datasets()[0].identifiers) == 4
