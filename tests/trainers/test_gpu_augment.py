"""Trainers that augment on the device that trains, here the CPU: tiny trainings from nnU-Net's own entry point."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.base.basic_transform import ImageOnlyTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import nnUNetTrainerNoMirroring

from nnunetv2_slicemamba.augmentation import device_batches
from nnunetv2_slicemamba.augmentation.device_batches import DeviceBatches
from nnunetv2_slicemamba.augmentation.host_batches import HostBatches
from nnunetv2_slicemamba.augmentation.mirroring import Mirror
from nnunetv2_slicemamba.trainers import (
    TRAINERS,
    GPUAugmentation,
    SliceMambaTrainer,
    gpu_augment,
    nnUNetTrainerGPUAugment,
)
from nnunetv2_slicemamba.trainers.fused_units import fuse_units
from tests.trainers.short_trainings import RESIDUAL, STOCK, make

CPU = torch.device("cpu")


@pytest.fixture(params=["0", "2"])
def processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("nnUNet_n_proc_DA", request.param)
    return int(request.param)


@pytest.fixture
def loaders(
    request: pytest.FixtureRequest, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """loaders(class): the trainer with its two loaders, which are closed afterwards."""
    opened: list[Any] = []
    if "processes" not in request.fixturenames:
        monkeypatch.setenv("nnUNet_n_proc_DA", "0")

    def make_loaders(trainer: type) -> Any:
        made = make(trainer)
        made.dataloader_train, made.dataloader_val = made.get_dataloaders()
        opened.extend([made.dataloader_train, made.dataloader_val])
        return made

    yield make_loaders
    for one in opened:
        close = getattr(one, "close", None) or getattr(one, "_finish", lambda: None)
        close()


def log_of(trainer: Any) -> str:
    return Path(trainer.log_file).read_text()


@pytest.mark.usefixtures("on_cpu", "processes")
@pytest.mark.parametrize("name", ["nnUNetTrainerGPUAugment_1epoch", "SliceMambaSupernetTrainer_1epoch"])
def test_a_training_runs_on_batches_augmented_on_the_device(name: str, workspace: Path) -> None:
    trainer = make(TRAINERS[name])
    trainer.run_training()
    assert isinstance(trainer.dataloader_train, DeviceBatches)
    assert not trainer.dataloader_train.workers.processes
    assert not trainer.dataloader_train.thread.is_alive()
    assert "batches are augmented on the GPU" in log_of(trainer)
    assert (Path(trainer.output_folder) / "checkpoint_final.pth").is_file()
    assert np.isfinite(trainer.logger.get_value("train_losses", step=-1))


@pytest.mark.usefixtures("on_cpu", "processes")
def test_batches_have_the_shapes_and_types_of_nnunets(loaders: Callable[..., Any], monkeypatch: Any) -> None:
    trainer = loaders(nnUNetTrainerGPUAugment)
    ours = [next(trainer.dataloader_train), next(trainer.dataloader_val)]
    monkeypatch.setenv("SLICEMAMBA_AUGMENT", "cpu")
    theirs = loaders(nnUNetTrainerGPUAugment)
    assert not isinstance(theirs.dataloader_train, DeviceBatches)
    for own, nnunets in zip(ours, (next(theirs.dataloader_train), next(theirs.dataloader_val)), strict=True):
        assert own.keys() == nnunets.keys()
        assert (own["data"].shape, own["data"].dtype) == (nnunets["data"].shape, nnunets["data"].dtype)
        assert [(t.shape, t.dtype) for t in own["target"]] == [(t.shape, t.dtype) for t in nnunets["target"]]
        assert len(own["keys"]) == len(nnunets["keys"])


@pytest.mark.usefixtures("on_cpu")
def test_validation_patches_are_nnunets_without_chance(loaders: Callable[..., Any], monkeypatch: Any) -> None:
    """The same draws give the same patches and targets on either path."""
    monkeypatch.setenv("SLICEMAMBA_SEED", "3")
    ours = loaders(nnUNetTrainerGPUAugment)
    monkeypatch.setenv("SLICEMAMBA_AUGMENT", "cpu")
    theirs = loaders(nnUNetTrainerGPUAugment)
    assert isinstance(ours.dataloader_val, DeviceBatches)
    assert isinstance(theirs.dataloader_val, HostBatches)
    for _ in range(3):
        own, nnunets = next(ours.dataloader_val), next(theirs.dataloader_val)
        assert own["keys"] == list(nnunets["keys"])
        assert torch.equal(own["data"], nnunets["data"])
        assert all(map(torch.equal, own["target"], nnunets["target"]))


def test_without_cuda_nnunets_own_loaders_are_used(loaders: Callable[..., Any], monkeypatch: Any) -> None:
    assert isinstance(loaders(SliceMambaTrainer).dataloader_train, SingleThreadedAugmenter)
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    assert isinstance(loaders(SliceMambaTrainer).dataloader_train, NonDetMultiThreadedAugmenter)


def test_the_switch_takes_cpu_or_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_augment.is_wanted(torch.device("cuda", 0))
    assert not gpu_augment.is_wanted(CPU)
    assert not gpu_augment.is_wanted(torch.device("mps"))
    monkeypatch.setenv("SLICEMAMBA_AUGMENT", "cpu")
    assert not gpu_augment.is_wanted(torch.device("cuda", 0))
    monkeypatch.setenv("SLICEMAMBA_AUGMENT", "GPU")
    with pytest.raises(ValueError, match="SLICEMAMBA_AUGMENT is 'GPU': set it to cpu or gpu"):
        gpu_augment.is_wanted(torch.device("cuda", 0))


class NoMirroring(GPUAugmentation, nnUNetTrainerNoMirroring):
    """nnU-Net's own trainer without mirroring, with the mix-in."""


class Inversion(ImageOnlyTransform):
    """An operation that no one knows."""

    def _apply_to_image(self, img: torch.Tensor, **parameters: Any) -> torch.Tensor:
        return -img


class WithInversion(GPUAugmentation):
    """Adds an operation of its own to nnU-Net's."""

    @staticmethod
    def get_training_transforms(*args: Any, **kwargs: Any) -> ComposeTransforms:
        return ComposeTransforms([GPUAugmentation.get_training_transforms(*args, **kwargs), Inversion()])


class FewerSamples(nnUNetDataLoader):
    """A loader that makes its batches in its own way."""

    def generate_train_batch(self) -> dict:
        return super().generate_train_batch()


class OtherLoader(nnUNetTrainerNoMirroring):
    def get_dataloaders(self) -> Any:
        made = super().get_dataloaders()
        for one in made:
            one.data_loader.__class__ = FewerSamples
        return made


class OverOtherLoader(GPUAugmentation, OtherLoader):
    """The mix-in over a trainer whose loaders are not nnU-Net's."""


@pytest.mark.usefixtures("on_cpu")
def test_an_overridden_policy_is_the_one_that_is_applied(loaders: Callable[..., Any]) -> None:
    plain, without = loaders(nnUNetTrainerGPUAugment), loaders(NoMirroring)
    twins = [[step.twin for step in t.dataloader_train.policy.steps] for t in (plain, without)]
    assert any(isinstance(twin, Mirror) for twin in twins[0])
    assert not any(isinstance(twin, Mirror) for twin in twins[1])


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("trainer", [WithInversion, OverOtherLoader])
def test_what_is_not_known_is_done_by_nnunet_and_named_in_the_log(trainer: type, loaders: Callable[..., Any]) -> None:
    made = loaders(trainer)
    assert isinstance(made.dataloader_train, SingleThreadedAugmenter)
    named = {
        WithInversion: "augmentation stays on the CPU; unknown on the GPU: Inversion",
        OverOtherLoader: "own loaders, neither seeded nor",
    }
    assert named[trainer] in log_of(made)
    assert log_of(made).count("This split has") == 1
    assert len(next(made.dataloader_train)["data"])


@pytest.mark.usefixtures("on_cpu")
def test_nnunets_stronger_augmentation_stays_on_the_cpu(loaders: Callable[..., Any]) -> None:
    class DA5(GPUAugmentation, nnUNetTrainerDA5):
        pass

    made = loaders(DA5)
    assert isinstance(made.dataloader_train, SingleThreadedAugmenter)
    assert "augmentation stays on the CPU" in log_of(made)


@pytest.mark.usefixtures("on_cpu")
def test_a_failing_reader_stops_the_training_and_says_why(loaders: Callable[..., Any], monkeypatch: Any) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    # as of a large data set
    monkeypatch.setattr(device_batches, "cases_in_memory", lambda loader: {})
    trainer = loaders(nnUNetTrainerGPUAugment)
    next(trainer.dataloader_train)
    folder = Path(trainer.preprocessed_dataset_folder)
    for file in folder.glob("*.pkl"):
        file.unlink()
    # gone before it is examined, or between that and its reading
    with pytest.raises(RuntimeError, match=r"making batch .* failed:(.|\n)*(there is no|No such) file .*\.pkl"):
        # some were ready
        list(itertools.islice(trainer.dataloader_train, 20))


@pytest.mark.parametrize(
    ("asked", "usable", "changed", "compiles"),
    [
        (None, True, {}, False),
        (None, False, {}, True),
        ("1", True, {}, True),
        (None, True, {"norm_op": "torch.nn.BatchNorm2d"}, True),
        (None, True, {"dropout_op": "torch.nn.Dropout2d", "dropout_op_kwargs": {"p": 0.2}}, True),
        (None, True, {"nonlin": "torch.nn.ReLU"}, True),
        ("0", True, {"nonlin": "torch.nn.ReLU"}, False),
    ],
)
def test_nnunets_network_is_compiled_on_request_or_where_its_units_cannot_be_fused(
    asked: str | None,
    usable: bool,
    changed: dict[str, Any],
    compiles: bool,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("nnUNet_compile", raising=False)
    if asked is not None:
        monkeypatch.setenv("nnUNet_compile", asked)
    monkeypatch.setattr(gpu_augment, "unavailable_reason", lambda device, dtype: None if usable else "no GPU")
    kwargs, imported = STOCK["arch_kwargs"] | changed, [*STOCK["_kw_requires_import"], *changed.keys() & {"dropout_op"}]
    trainer = make(
        nnUNetTrainerGPUAugment, architecture={**STOCK, "arch_kwargs": kwargs, "_kw_requires_import": imported}
    )
    assert (fuse_units(trainer.network) == 0) is bool(changed)
    trainer.device = torch.device("cuda")
    assert trainer._do_i_compile() is compiles


def test_nnunets_trainer_refuses_plans_of_ours(workspace: Path) -> None:
    del workspace
    with pytest.raises(ValueError, match=r"hold the network SliceMambaResidualUNet, .*: pass -tr SliceMambaTrainer"):
        make(nnUNetTrainerGPUAugment, architecture=RESIDUAL)
