"""Folds of one folder have one network, and no training goes on from another one's checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_slicemamba.planning.residual import RESIDUAL_CLASS, plain_unet_kwargs, residual_kwargs
from nnunetv2_slicemamba.trainers import TRAINERS

DISKS = "Dataset901_Disks"
OLD, NEW = 8, 4  # strides at which blocks begin


@pytest.fixture
def make(workspace: Path, plans: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """make(fold, from_stride, name="SliceMambaTrainer"): an initialised trainer; training ends where it begins."""
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", lambda self: None)
    description = json.loads((workspace / "nnUNet_preprocessed" / DISKS / "dataset.json").read_text())
    planned = plain_unet_kwargs([[1, 1], [2, 2], [2, 2], [2, 2]], [[3, 3]] * 4, "S")

    def make_one(fold: int, from_stride: int, name: str = "SliceMambaTrainer", labels: int = 2) -> Any:
        given = json.loads(json.dumps(plans)) | {"continue_training": False}
        architecture = {"network_class_name": RESIDUAL_CLASS, "arch_kwargs": residual_kwargs(planned, from_stride)}
        given["configurations"]["2d"]["architecture"] = architecture | {"_kw_requires_import": []}
        named = description | {"labels": {"background": 0} | {f"part {i}": i for i in range(1, labels)}}
        trainer = TRAINERS[name](given, "2d", fold, named, torch.device("cpu"))
        trainer.initialize()
        return trainer

    return make_one


def save(trainer: Any, name: str = "checkpoint_final.pth") -> str:
    file = Path(trainer.output_folder) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    trainer._best_ema = 0.25
    trainer.save_checkpoint(str(file))
    return str(file)


@pytest.mark.parametrize("name", ["SliceMambaTrainer", "SliceMambaSupernetTrainer"])
def test_a_checkpoint_of_the_old_default_is_refused_with_what_differs_and_the_remedy(
    name: str, make: Callable[..., Any]
) -> None:
    file = save(make(0, OLD, name), "checkpoint_latest.pth")
    make(0, OLD, name).load_checkpoint(file)
    with pytest.raises(ValueError, match="is of another network than the plans") as refused:
        make(0, NEW, name).load_checkpoint(file)
    said = str(refused.value)
    assert said.startswith(f"{file} is of another network than the plans nnUNetSliceMambaSPlans hold now: ")
    assert "architecture.arch_kwargs.n_blocks_per_stage [0, 0, 1, 1] in place of [0, 0, 0, 1]" in said
    assert "Restore the plans, plan them with --blocks-from-stride 8 as before, give the new ones another name" in said


def test_a_fold_is_not_trained_beside_folds_of_another_network(make: Callable[..., Any]) -> None:
    file = save(make(0, OLD))
    make(1, OLD).on_train_start()
    make(0, NEW).on_train_start()  # its own folder is another matter
    with pytest.raises(
        ValueError, match=f"{file} is of another network than the plans .* folder .* away to train anew"
    ):
        make(1, NEW).on_train_start()
    Path(file).write_bytes(b"damaged")
    make(1, NEW).on_train_start()


def test_labels_that_were_added_are_told_by_the_weights(make: Callable[..., Any]) -> None:
    save(make(0, NEW))
    with pytest.raises(ValueError, match=r"decoder.seg_layers.0.weight \(3, .*\) in place of \(2, .*\)\. Restore"):
        make(1, NEW, labels=3).on_train_start()
