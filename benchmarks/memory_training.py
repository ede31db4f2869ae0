"""Real trainings of a few steps on made-up data, each in a process of its own: the work of memory_gpu.py.

A trainer is made from plans as nnUNetv2_train makes it, in nnU-Net folders of its own; only its network is built on the
device, and its batches are random.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

from nnunetv2_slicemamba.planning.architecture import NETWORK_CLASS, architecture_kwargs
from nnunetv2_slicemamba.planning.planner import PLANNERS

DATASET = "Dataset999_Memory"
# name -> configuration, channels, classes, median shape, spacing, cases
DATASETS: dict[str, tuple[str, int, int, tuple[int, ...], tuple[float, ...], int]] = {
    "skin 2D 512x512": ("2d", 3, 2, (1, 512, 512), (999.0, 1.0, 1.0), 2000),
    "hippocampus 3D": ("3d_fullres", 1, 3, (36, 50, 35), (1.0, 1.0, 1.0), 260),
    "CT 3D": ("3d_fullres", 1, 14, (140, 480, 480), (3.0, 0.76, 0.76), 500),
}
TINY_DATASETS = {"tiny 2D": ("2d", 3, 2, (1, 40, 48), (999.0, 1.0, 1.0), 20)}
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@dataclass(frozen=True)
class Shape:
    """A training to measure. patch: voxels per axis, as many axes as the network has. spacing: decides the strides.

    block_graphs: a supernet may record CUDA graphs of its blocks, which the planner's model leaves out. hybrid: with a
    convolutional stem.
    """

    size: str
    patch: tuple[int, ...]
    batch: int
    supernet: bool = False
    checkpointing: bool = False
    channels: int = 1
    classes: int = 2
    spacing: tuple[float, ...] = ()
    block_graphs: bool = False
    hybrid: bool = False

    @property
    def arch_kwargs(self) -> dict[str, Any]:
        """The planner's network for the strides that nnU-Net plans for this patch and spacing."""
        spacing = self.spacing or (1.0,) * len(self.patch)
        pooling = get_pool_and_conv_props(np.array(spacing), list(self.patch), 4, 999999)[1]
        return architecture_kwargs(pooling, self.size, self.checkpointing, self.hybrid)

    @property
    def name(self) -> str:
        parts = [self.size, "x".join(map(str, self.patch)), f"batch {self.batch}", f"{self.channels} ch"]
        parts += [f"{self.classes} cl", *(["supernet"] if self.supernet else [])]
        parts += ["block graphs"] if self.block_graphs else []
        parts += ["hybrid"] if self.hybrid else []
        return ", ".join([*parts, *(["checkpointed"] if self.checkpointing else [])])


def use_folders(root: Path) -> None:
    """Points nnU-Net to folders below `root`; the preprocessed data there are one empty file."""
    for name in FOLDERS:
        (root / name).mkdir(exist_ok=True)
        os.environ[name] = str(root / name)
    os.environ.setdefault("nnUNet_n_proc_DA", "0")


def describe(channels: int, classes: int) -> dict[str, Any]:
    """dataset.json of such a dataset."""
    labels = {"background": 0} | {f"class {i}": i for i in range(1, classes)}
    names = {str(i): f"channel {i}" for i in range(channels)}
    return {
        "channel_names": names,
        "labels": labels,
        "numTraining": 1000,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
        # nnU-Net looks for files that are not listed
        "dataset": {"case": {"images": ["imagesTr/case_0000.nii.gz"], "label": "labelsTr/case.nii.gz"}},
    }


def plans_of(shape: Shape) -> dict[str, Any]:
    """Plans with the one configuration "measured", complete as far as a trainer reads them."""
    axes = len(shape.patch)
    resampling = {
        f"resampling_fn_{what}{suffix}": value
        for what in ("data", "seg", "probabilities")
        for suffix, value in (("", "resample_data_or_seg_to_shape"), ("_kwargs", {}))
    }
    configuration = {
        "data_identifier": "measured",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": shape.batch,
        "patch_size": list(shape.patch),
        "median_image_size_in_voxels": list(shape.patch),
        "spacing": list(shape.spacing or (1.0,) * axes),
        "normalization_schemes": ["ZScoreNormalization"] * shape.channels,
        "use_mask_for_norm": [False] * shape.channels,
        "batch_dice": axes == 2,
        "architecture": {
            "network_class_name": NETWORK_CLASS,
            "arch_kwargs": shape.arch_kwargs,
            "_kw_requires_import": [],
        },
        **resampling,
    }
    return {
        "dataset_name": DATASET,
        "plans_name": "nnUNetMemoryPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "configurations": {"measured": configuration},
    }


def make_trainer(plans: dict, configuration: str, description: dict, supernet: bool, device: torch.device) -> Any:
    """The trainer of fold 0 with network, optimiser and loss; after `use_folders`. A supernet's draws become a cycle
    through all candidates, so that the optimiser soon has its state of all of them, as after many iterations."""
    from nnunetv2_slicemamba.trainers import TRAINERS

    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / DATASET
    data = preprocessed / plans["configurations"][configuration]["data_identifier"]
    data.mkdir(parents=True, exist_ok=True)
    (data / "case.b2nd").touch()  # nnU-Net only wants to know how the data are stored
    trainer_class = TRAINERS["SliceMambaSupernetTrainer" if supernet else "SliceMambaTrainer"]
    given = json.loads(json.dumps(plans)) | {"continue_training": False}
    with contextlib.redirect_stdout(io.StringIO()), device:
        trainer = trainer_class(given, configuration, 0, description, device)
        trainer.initialize()
    if supernet:
        network = trainer.supernet

        def draw_path(iteration: int) -> tuple[int, ...]:
            n = len(network.candidates)
            path = tuple((iteration + block) % n for block in range(network.n_blocks))
            network._choose(path)
            return path

        trainer.draw_path = draw_path
    trainer.network.train()
    return trainer


def make_batch(trainer: Any) -> dict[str, Any]:
    """Random images and targets at every output's resolution, on the CPU and of the types of nnU-Net's loader."""
    manager, generator = trainer.configuration_manager, torch.Generator().manual_seed(0)
    batch, patch = manager.batch_size, manager.patch_size
    classes = trainer.label_manager.num_segmentation_heads
    scales = trainer._get_deep_supervision_scales() or [[1.0] * len(patch)]
    targets = []
    for scale in scales:
        sizes = [round(size * s) for size, s in zip(patch, scale, strict=True)]
        drawn = torch.randint(classes, (batch, 1, *sizes), generator=generator, dtype=torch.int16)
        targets.append(drawn)
    data = torch.randn(batch, trainer.num_input_channels, *patch, generator=generator)
    return {"data": data, "target": targets if trainer.enable_deep_supervision else targets[0]}


def warm_up(trainer: Any, batch: dict[str, Any], most: int = 20) -> int:
    """Training steps until the optimiser has its state of every parameter, those of the heads aside, of which nnU-Net
    gives the lowest resolution's no weight; returns their number."""
    heads = set(trainer.bare_network.decoder.seg_layers.parameters())
    parameters = {p for group in trainer.optimizer.param_groups for p in group["params"]} - heads
    for done in range(1, most + 1):
        trainer.train_step(batch)
        if parameters <= trainer.optimizer.state.keys():
            return done
    return most


def synchronised(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def plan(name: str, datasets: dict[str, Any], size: str, target: float) -> tuple[dict, str, dict]:
    """Plans, configuration and dataset.json of the planner for a fingerprint of such images. target: GB to plan for."""
    configuration, channels, classes, shape, spacing, cases = datasets[name]
    description = describe(channels, classes) | {"numTraining": cases}
    intensities = dict.fromkeys(("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"), 1.0)
    fingerprint = {
        "shapes_after_crop": [list(shape)],
        "spacings": [list(spacing)],
        "median_relative_size_after_cropping": 1.0,
        "foreground_intensity_properties_per_channel": {str(i): intensities for i in range(channels)},
    }
    raw, preprocessed = (Path(os.environ[f"nnUNet_{part}"]) / DATASET for part in ("raw", "preprocessed"))
    for folder, file, content in (
        (raw, "dataset.json", description),
        (preprocessed, "dataset_fingerprint.json", fingerprint),
    ):
        folder.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(content))
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plans = PLANNERS[size](DATASET, target).plan_experiment()
    for warning in caught:
        if "more than the" in str(warning.message):
            print(f"{name}, {size}, {target:g} GB: {warning.message}", flush=True)
    return json.loads(json.dumps(plans)), configuration, description


def in_a_process(function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...], seconds: float) -> dict[str, Any]:
    """function(*arguments), or {"ok": False, "error": one line} where that failed, died or took too long.

    In a fork, which starts without imports, or, where CUDA cannot be used in one, in a new process.
    """
    result = _in_a_process("fork", function, arguments, seconds)
    if "initializ" in result.get("error", ""):
        result = _in_a_process("spawn", function, arguments, seconds)
    return result


def _answer(connection: Connection, function: Callable[..., dict[str, Any]], *arguments: Any) -> None:
    try:
        connection.send(function(*arguments))
    except Exception as error:
        connection.send({"ok": False, "error": f"{type(error).__name__}: {error}".splitlines()[0]})


def _in_a_process(
    method: str, function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...], seconds: float
) -> dict[str, Any]:
    context: Any = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, function, *arguments))
    process.start()
    theirs.close()
    result: dict[str, Any] = {"ok": False, "error": f"not done after {seconds:.0f} s"}
    try:
        if ours.poll(seconds):
            result = ours.recv()
    except EOFError:
        result = {"ok": False, "error": "the process died"}
    if process.is_alive():
        process.join(5)
        process.kill()
    process.join()
    return result
