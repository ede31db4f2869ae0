"""Trainers that augment on the GPU: a mix-in for any nnU-Net trainer, and nnU-Net's own trainer with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch._dynamo import OptimizedModule

from nnunetv2_slicemamba.augmentation import UnknownTransformError, translate
from nnunetv2_slicemamba.augmentation.device_batches import DeviceBatches
from nnunetv2_slicemamba.augmentation.host_batches import HostBatches
from nnunetv2_slicemamba.augmentation.patches import is_plain
from nnunetv2_slicemamba.augmentation.seeds import Use, sequence
from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.common.names import NETWORK_CLASSES, class_name
from nnunetv2_slicemamba.ops.cuda_scan import unavailable_reason
from nnunetv2_slicemamba.trainers.fused_units import can_fuse, fuse_units
from nnunetv2_slicemamba.trainers.interruptible import InterruptibleTraining
from nnunetv2_slicemamba.trainers.recorded_loss import recorded
from nnunetv2_slicemamba.trainers.recorded_network import RecordedNetwork
from nnunetv2_slicemamba.trainers.safe_loading import SafeLoading
from nnunetv2_slicemamba.trainers.seeded import SeededTraining
from nnunetv2_slicemamba.trainers.shared_loss import shared

ENVIRONMENT_VARIABLE = "SLICEMAMBA_AUGMENT"
N_PROCESSES_VARIABLE = "nnUNet_n_proc_DA"
MOST_READERS = 8  # reading and cropping alone keeps fewer processes busy than augmentation does


def is_wanted(device: torch.device) -> bool:
    """Whether batches are to be augmented on `device`: on CUDA, unless SLICEMAMBA_AUGMENT is cpu.

    ValueError for another value.
    """
    value = os.environ.get(ENVIRONMENT_VARIABLE, "gpu")
    if value not in ("cpu", "gpu"):
        raise ValueError(f"{ENVIRONMENT_VARIABLE} is {value!r}: set it to cpu or gpu, or unset it")
    return value == "gpu" and device.type == "cuda"


class Untransformed:
    """Stands in a loader for transforms that are applied elsewhere; passes samples on as they are."""

    def __init__(self, transforms: Any) -> None:
        self.transforms = transforms

    def __call__(self, **sample: Any) -> dict[str, Any]:
        return sample


class GPUAugmentation(InterruptibleTraining, SeededTraining):
    """A mix-in: batches are augmented on the GPU as get_training_transforms and get_validation_transforms say.

    Other processes read and crop patches only. What those methods return may be overridden; if it holds something that
    has no twin on the GPU, or the loaders are not nnU-Net's, all is as without the mix-in, and the log says so. With
    SLICEMAMBA_SEED batches are drawn from it, on either path. Signals and the fold's folder are treated as
    InterruptibleTraining says.

        class MyGPUTrainer(GPUAugmentation, MyTrainer): ...
    """

    loss: Any
    network: Any

    def initialize(self) -> None:
        super().initialize()
        if self.is_ddp:
            self.loss = shared(self.loss)
        if self.device.type == "cuda":
            self.loss = recorded(self.loss)

    def get_dataloaders(self) -> tuple[Any, Any]:
        wanted = is_wanted(self.device)
        if not wanted and self.seed is None:
            return super().get_dataloaders()
        loaders = untransformed_loaders(self, super().get_dataloaders)
        if loaders is None:
            self.print_to_log_file(
                f"batches come from {type(self).__name__}'s own loaders, neither seeded nor augmented on the GPU"
            )
            with _log_aside(self):  # it has been written already
                return super().get_dataloaders()
        if wanted:
            try:
                return self._device_batches(*loaders)
            except UnknownTransformError as unknown:
                self.print_to_log_file(f"augmentation stays on the CPU; unknown on the GPU: {unknown}")
        if self.seed is None:
            with _log_aside(self):
                return super().get_dataloaders()
        for loader in loaders:
            loader.transforms = loader.transforms.transforms
        n = get_allowed_n_proc_DA()
        return (
            HostBatches(loaders[0], self._seed_of(Use.TRAINING_BATCHES), self._first(training=True), n),
            HostBatches(loaders[1], self._seed_of(Use.VALIDATION_BATCHES), self._first(training=False), (n + 1) // 2),
        )

    def _device_batches(self, training: nnUNetDataLoader, validation: nnUNetDataLoader) -> tuple[Any, Any]:
        manager = self.label_manager
        labels = sorted({-1, *map(int, manager.all_labels), *filter(None, [manager.ignore_label])})
        policies = [translate(loader.transforms.transforms, labels) for loader in (training, validation)]
        training.transforms = validation.transforms = None
        n = min(get_allowed_n_proc_DA(), MOST_READERS)
        made = (
            DeviceBatches(
                training,
                policies[0],
                labels,
                self.device,
                self._seed_of(Use.TRAINING_BATCHES),
                self._first(training=True),
                n,
            ),
            DeviceBatches(
                validation,
                policies[1],
                labels,
                self.device,
                self._seed_of(Use.VALIDATION_BATCHES),
                self._first(training=False),
                (n + 1) // 2,
            ),
        )
        self.print_to_log_file(
            f"batches are augmented on the GPU; {ENVIRONMENT_VARIABLE}=cpu would have it done by nnU-Net's processes"
        )
        return made[0].start(), made[1].start()

    def _seed_of(self, use: Use) -> Callable[[int], np.random.SeedSequence]:
        """The seeds of batches by their number; without SLICEMAMBA_SEED, other ones for every training."""
        entropy = np.random.SeedSequence().entropy if self.seed is None else self.seed
        assert isinstance(entropy, int)
        return partial(sequence, entropy, use, self.local_rank)

    def _first(self, training: bool) -> int:
        """The number of the first batch: a continued training goes on with those that it has not seen."""
        return self.current_epoch * (self.num_iterations_per_epoch if training else self.num_val_iterations_per_epoch)

    def on_train_end(self) -> None:
        super().on_train_end()
        self.close_batches()

    def close_batches(self) -> None:
        super().close_batches()
        for batches in (self.dataloader_train, self.dataloader_val):
            if isinstance(batches, (DeviceBatches, HostBatches)):
                batches.close()


def untransformed_loaders(
    trainer: nnUNetTrainer, get_dataloaders: Callable[[], tuple[Any, Any]]
) -> tuple[nnUNetDataLoader, nnUNetDataLoader] | None:
    """nnU-Net's loaders of training and validation as a trainer makes them, with Untransformed for their transforms.

    None if they are none of nnU-Net's. get_dataloaders: the method as it is without us; it is called with no processes,
    where it makes one batch of either, which the transforms would only delay.
    """
    with _without_processes(), _with_transforms_aside(trainer):
        made = get_dataloaders()
    loaders = [one.data_loader for one in made if isinstance(one, SingleThreadedAugmenter) and one.transform is None]
    if len(loaders) != 2 or not all(is_plain(one) and isinstance(one.transforms, Untransformed) for one in loaders):
        return None
    return loaders[0], loaders[1]


@contextmanager
def _without_processes() -> Iterator[None]:
    before = os.environ.get(N_PROCESSES_VARIABLE)
    os.environ[N_PROCESSES_VARIABLE] = "0"
    try:
        yield
    finally:
        del os.environ[N_PROCESSES_VARIABLE]
        if before is not None:
            os.environ[N_PROCESSES_VARIABLE] = before


@contextmanager
def _log_aside(trainer: Any) -> Iterator[None]:
    """The trainer writes nothing to its log."""
    trainer.print_to_log_file = lambda *args, **kwargs: None
    try:
        yield
    finally:
        del trainer.print_to_log_file


@contextmanager
def _with_transforms_aside(trainer: Any) -> Iterator[None]:
    """The trainer's transforms come wrapped in Untransformed."""
    names = ("get_training_transforms", "get_validation_transforms")
    for name in names:
        setattr(trainer, name, _wrapped(getattr(trainer, name)))
    try:
        yield
    finally:
        for name in names:
            delattr(trainer, name)


def _wrapped(get_transforms: Callable[..., Any]) -> Callable[..., Untransformed]:
    return lambda *args, **kwargs: Untransformed(get_transforms(*args, **kwargs))


class nnUNetTrainerGPUAugment(SafeLoading, GPUAugmentation):
    """nnU-Net's trainer, networks and plans, with its augmentation on the GPU.

    On one GPU its training steps replay CUDA graphs: the host starts a step's kernels at once. Norms and activations of
    nnU-Net's units run as one kernel there, and nothing is compiled unless nnUNet_compile asks for it. A network whose
    units are others is compiled as nnU-Net does.
    """

    role: ClassVar[str] = "other"
    epochs: ClassVar[int] = 1000
    iterations_per_epoch: ClassVar[int] = 250
    validation_iterations: ClassVar[int] = 50
    deep_supervision: ClassVar[bool] = True

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int | str,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        planned = class_name(self.configuration_manager.network_arch_class_name)
        if planned in NETWORK_CLASSES:
            raise ValueError(
                f"the plans {self.plans_manager.plans_name!r} hold the network {planned}, and nnUNetTrainerGPUAugment "
                "trains nnU-Net's own: pass -tr SliceMambaTrainer, which augments on the GPU too, or nnU-Net's plans, "
                "e.g. -p nnUNetPlans"
            )
        self.num_epochs = self.epochs
        self.num_iterations_per_epoch = self.iterations_per_epoch
        self.num_val_iterations_per_epoch = self.validation_iterations
        self.enable_deep_supervision = self.deep_supervision
        self.recorded: RecordedNetwork | None = None

    def initialize(self) -> None:
        super().initialize()
        if self.device.type == "cuda" and not self.is_ddp and not isinstance(self.network, OptimizedModule):
            fused = fuse_units(self.network)
            self.print_to_log_file(f"norm and activation are one kernel in {count(fused, 'unit')} of the network")

    def _do_i_compile(self) -> bool:
        # fused units in a graph take less time than a compiled network, and start at once
        fused = (
            not self.is_ddp
            and unavailable_reason(self.device, torch.float16) is None
            and can_fuse(self.configuration_manager.network_arch_init_kwargs)
        )
        return super()._do_i_compile() and ("nnUNet_compile" in os.environ or not fused)

    def train_step(self, batch: dict) -> dict:
        if self.device.type != "cuda" or self.is_ddp:
            return super().train_step(batch)
        network = self.network
        first = self.recorded is None or self.recorded.network is not network
        if first:
            self.recorded = RecordedNetwork(network)
        # for the step alone: nnU-Net looks for its own network in all other places
        self.network = self.recorded
        try:
            result = super().train_step(batch)
        finally:
            self.network = network
        if first and self.recorded is not None:
            reason = self.recorded.reason
            said = f"no CUDA graphs: {reason}" if reason else "CUDA graphs; SLICEMAMBA_GRAPHS=0 would switch them off"
            self.print_to_log_file(f"training steps replay {said}")
        return result

    def on_train_end(self) -> None:
        self.recorded = None
        super().on_train_end()
