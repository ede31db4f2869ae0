"""Trainings of a few steps on the tiny images, by nnU-Net's small network or ours, from start to checkpoint."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from nnunetv2_slicemamba.planning.residual import BLOCKS, RESIDUAL_CLASS
from nnunetv2_slicemamba.trainers.base import SliceMambaBaseTrainer

DISKS = "Dataset901_Disks"
EPOCHS, ITERATIONS, STOPPED_AFTER = 3, 3, 2
STOCK = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 3,
        "features_per_stage": [4, 8, 8],
        "conv_op": "torch.nn.modules.conv.Conv2d",
        "kernel_sizes": [[3, 3]] * 3,
        "strides": [[1, 1], [2, 2], [2, 2]],
        "n_conv_per_stage": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
        "norm_op_kwargs": {"affine": True},
        "nonlin": "torch.nn.LeakyReLU",
    },
    "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
}


RESIDUAL = {
    "network_class_name": RESIDUAL_CLASS,
    "arch_kwargs": {
        "n_stages": 3,
        "features_per_stage": [4, 8, 8],
        "strides": [[1, 1], [2, 2], [2, 2]],
        "kernel_sizes": [[3, 3]] * 3,
        "n_conv_per_stage": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
        "n_blocks_per_stage": [0, 0, 1],
        "n_blocks_per_stage_decoder": [1, 0],
        **BLOCKS,
    },
    "_kw_requires_import": [],
}


class StoppedError(Exception):
    """The machine was switched off."""


def make(trainer: type, device: str = "cpu", architecture: dict[str, Any] | None = None) -> Any:
    """A trainer of the workspace's images, initialised, for three epochs of three steps.

    architecture: in place of the planned one, as plans have it.
    """
    folder = Path(os.environ["nnUNet_preprocessed"]) / DISKS
    plans = json.loads((folder / "nnUNetSliceMambaSPlans.json").read_text()) | {"continue_training": False}
    if architecture is None and not issubclass(trainer, SliceMambaBaseTrainer):
        architecture = STOCK
    if architecture is not None:
        plans["configurations"]["2d"]["architecture"] = json.loads(json.dumps(architecture))
    made = trainer(plans, "2d", 0, json.loads((folder / "dataset.json").read_text()), torch.device(device))
    made.num_epochs, made.num_iterations_per_epoch, made.num_val_iterations_per_epoch = EPOCHS, ITERATIONS, 1
    made.save_every = 1
    made.initialize()
    return made


def train(trainer: Any, stopped: bool = False, continued: bool = False) -> dict[str, Any]:
    """Trains, from the start where an earlier training is in the folder; the checkpoint that is left.

    stopped: after two epochs, without a final checkpoint. continued: from where a stopped one of the same class was.
    """
    latest, final = (Path(trainer.output_folder) / f"checkpoint_{name}.pth" for name in ("latest", "final"))
    if continued:
        trainer.load_checkpoint(str(latest))
        assert trainer.current_epoch == STOPPED_AFTER
    else:
        for file in latest.parent.glob("checkpoint_*.pth"):
            file.unlink()
    if stopped:
        on_epoch_start = trainer.on_epoch_start
        trainer.on_epoch_start = lambda: stop_late(trainer, on_epoch_start)
        with suppress(StoppedError):
            trainer.run_training()
        for batches in (trainer.dataloader_train, trainer.dataloader_val):
            batches.close()
    else:
        trainer.run_training()
    return torch.load(latest if stopped else final, map_location="cpu", weights_only=False)


def stop_late(trainer: Any, on_epoch_start: Any) -> None:
    if trainer.current_epoch == STOPPED_AFTER:
        raise StoppedError
    on_epoch_start()


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Two checkpoints are equal, but for the times that their logs hold."""
    for key in ("network_weights", "optimizer_state", "grad_scaler_state", "_best_ema"):
        assert_equal(one[key], other[key])
    for key in ("train_losses", "val_losses", "mean_fg_dice", "dice_per_class_or_region"):
        assert one["logging"][key] == other["logging"][key]


def assert_equal(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other
