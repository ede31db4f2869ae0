"""Trainers on a tiny real dataset, ready for single steps on the CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2_slicemamba.planning.architecture import architecture_kwargs
from nnunetv2_slicemamba.trainers import TRAINERS, gpu_augment
from nnunetv2_slicemamba.trainers.base import SliceMambaBaseTrainer
from tests.trainers.short_trainings import STOCK

DISKS = "Dataset901_Disks"


@pytest.fixture
def plans(workspace: Path) -> dict[str, Any]:
    """Plans of two stages and seven blocks, for patches of 32 by 40 pixels."""
    return json.loads((workspace / "nnUNet_preprocessed" / DISKS / "nnUNetSliceMambaSPlans.json").read_text())


@pytest.fixture
def make_trainer(workspace: Path, plans: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """make_trainer(name, initialize=True, pooling=None, hybrid=False): a trainer of fold 0, as nnUNetv2_train makes it.

    pooling: nnU-Net's strides of another network than the planned one. hybrid: whether that one has a stem.
    """
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    description = json.loads((workspace / "nnUNet_preprocessed" / DISKS / "dataset.json").read_text())

    def make(name: str, initialize: bool = True, pooling: list[list[int]] | None = None, hybrid: bool = False) -> Any:
        given = json.loads(json.dumps(plans)) | {"continue_training": False}
        if pooling is not None:
            given["configurations"]["2d"]["architecture"]["arch_kwargs"] = architecture_kwargs(
                pooling, "S", hybrid=hybrid
            )
        if not issubclass(TRAINERS[name], SliceMambaBaseTrainer):
            given["configurations"]["2d"]["architecture"] = STOCK
        torch.manual_seed(0)
        trainer = TRAINERS[name](given, "2d", 0, description, torch.device("cpu"))
        if initialize:
            trainer.initialize()
        return trainer

    return make


@pytest.fixture
def batch_for() -> Callable[[Any], dict[str, Any]]:
    """batch_for(trainer): two noisy images with a target for every output, as nnU-Net's loader gives them."""

    def make(trainer: Any) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(1)
        size = trainer.configuration_manager.patch_size
        scales = trainer._get_deep_supervision_scales()
        targets = [
            (
                torch.rand(2, 1, *(round(s * f) for s, f in zip(size, scale, strict=True)), generator=generator) > 0.5
            ).float()
            for scale in scales or [[1.0] * len(size)]
        ]
        return {"data": torch.randn(2, 1, *size, generator=generator), "target": targets if scales else targets[0]}

    return make


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU counts as a GPU."""
    is_wanted = gpu_augment.is_wanted
    monkeypatch.setattr(gpu_augment, "is_wanted", lambda device: is_wanted(torch.device("cuda")))
