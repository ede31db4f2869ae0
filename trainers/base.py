"""Base of our trainers: AdamW with warm-up, safe checkpoints, deep supervision scales, the finite check."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn
from torch._dynamo import OptimizedModule

from nnunetv2_slicemamba.nets import training_graphs
from nnunetv2_slicemamba.nets.base import SliceMambaBase
from nnunetv2_slicemamba.nets.resolutions import output_scales
from nnunetv2_slicemamba.planning.architecture import NETWORK_CLASS
from nnunetv2_slicemamba.trainers.finished_epoch import bare
from nnunetv2_slicemamba.trainers.finite import GuardedLoss, NonFiniteLossError, first_non_finite
from nnunetv2_slicemamba.trainers.gpu_augment import GPUAugmentation
from nnunetv2_slicemamba.trainers.parameter_groups import parameter_groups
from nnunetv2_slicemamba.trainers.schedule import IterationScheduler, WarmupPoly


class SliceMambaBaseTrainer(GPUAugmentation):
    """nnU-Net's trainer with SliceMamba's optimiser and guards; subclasses say which network and which slicing.

    Class attributes are the settings that variants change: nnU-Net rebuilds trainers from constructor arguments
    that subclasses must not extend.
    """

    role: ClassVar[str]  # see trainers.roles
    # learning rate and decay of the publication
    learning_rate: ClassVar[float] = 1e-3
    decay: ClassVar[float] = 1e-2
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    warmup_iterations: ClassVar[int] = 1250  # a twentieth of the training where that is less
    rate_factors: ClassVar[Mapping[str, float]] = {}  # see parameter_groups
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
        self.initial_lr = self.learning_rate
        self.weight_decay = self.decay
        self.num_epochs = self.epochs
        self.num_iterations_per_epoch = self.iterations_per_epoch
        self.num_val_iterations_per_epoch = self.validation_iterations
        self.enable_deep_supervision = self.deep_supervision
        self.save_every = 10
        self.iteration = 0
        self.tried_to_record = self.replays = False

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        return build_from_plans(
            NETWORK_CLASS,
            plans_manager,
            configuration_manager,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
        )

    def _do_i_compile(self) -> bool:
        # nnU-Net compiles by default; ours only on request: CUDA graphs save more and cost seconds
        asked = os.environ.get("nnUNet_compile", "").lower() in ("true", "1", "t")
        return asked and super()._do_i_compile()

    @property
    def bare_network(self) -> SliceMambaBase:
        """The network without the wrappers of DDP and torch.compile."""
        network = bare(self.network, self.is_ddp)
        assert isinstance(network, SliceMambaBase)
        return network

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        optimizer = torch.optim.AdamW(
            parameter_groups(self.network, self.weight_decay, self.rate_factors),
            lr=self.initial_lr,
            betas=self.betas,
            fused=self.device.type == "cuda",
        )
        total = self.num_epochs * self.num_iterations_per_epoch
        schedule = WarmupPoly(self.initial_lr, warmup=max(1, min(self.warmup_iterations, total // 20)), total=total)
        return optimizer, IterationScheduler(optimizer, schedule, self.num_iterations_per_epoch)

    def initialize(self) -> None:
        super().initialize()
        if isinstance(self.lr_scheduler, IterationScheduler):
            self.lr_scheduler.keep_rates_of_groups()

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        # nnU-Net derives the scales from strides whose first keeps the resolution; ours starts with the patch
        # embedding or the stem, while the first output is at full resolution all the same
        if not self.enable_deep_supervision:
            return None
        arch_kwargs = self.configuration_manager.network_arch_init_kwargs
        return output_scales(arch_kwargs["strides"], len(arch_kwargs.get("stem_features", ())))

    def _build_loss(self) -> nn.Module:
        with np.errstate(invalid="ignore"):
            loss = super()._build_loss()
        if isinstance(loss, DeepSupervisionWrapper) and len(loss.weight_factors) == 1:
            # nnU-Net gives the lowest resolution weight 0, here it is the only one
            loss.weight_factors = (1.0,)
        # with a gradient scaler a non-finite loss cannot reach the weights, and train_step sees it afterwards
        return loss if self.grad_scaler is not None else GuardedLoss(loss)

    def on_train_epoch_start(self) -> None:
        self.iteration = self.current_epoch * self.num_iterations_per_epoch
        super().on_train_epoch_start()

    def on_train_start(self) -> None:
        self.tried_to_record = self.replays = False
        super().on_train_start()

    def on_train_end(self) -> None:
        training_graphs.drop(self.bare_network, inference=True)
        super().on_train_end()

    def record_graphs(self, data: torch.Tensor) -> None:
        """Before the first training step: from then on steps replay CUDA graphs, where they can."""
        self.tried_to_record = True
        compiled = isinstance(self.network.module if self.is_ddp else self.network, OptimizedModule)
        reason = "torch.compile" if compiled else training_graphs.unavailable_reason(self.bare_network, self.device)
        if reason is not None:
            if self.device.type == "cuda":
                self.print_to_log_file(f"training steps replay no CUDA graphs: {reason}")
            return
        try:
            with torch.autocast("cuda"):
                training_graphs.record(self.bare_network, data.to(self.device))
        except RuntimeError as error:
            training_graphs.drop(self.bare_network, inference=False)
            self.print_to_log_file(f"training goes on without CUDA graphs, which could not be recorded: {error}")
        else:
            self.replays = True
            self.print_to_log_file("training steps replay CUDA graphs; SLICEMAMBA_GRAPHS=0 would switch them off")

    def train_step(self, batch: dict) -> dict:
        if not self.tried_to_record:
            self.record_graphs(batch["data"])
        # of a scheduler that a subclass configured, nnU-Net has set the rate of the epoch
        if isinstance(self.lr_scheduler, IterationScheduler):
            self.lr_scheduler.step_iteration(self.iteration)
        try:
            result = self.step_or_drop_graphs(batch)
        except FloatingPointError as error:
            raise self._non_finite(batch, str(error)) from None
        if not np.isfinite(result["loss"]):
            raise self._non_finite(batch, f"loss {result['loss']}")
        self.iteration += 1
        return result

    def step_or_drop_graphs(self, batch: dict) -> dict:
        """nnU-Net's training step; where CUDA graphs leave it too little memory, once more without them.

        Not on several GPUs: the others may have this step's gradients already.
        """
        try:
            return super().train_step(batch)
        except torch.cuda.OutOfMemoryError:
            if self.replays and self.is_ddp:
                self.print_to_log_file("SLICEMAMBA_GRAPHS=0 would leave the CUDA graphs' memory to the training")
            if not self.replays or self.is_ddp:
                raise
        # not in the handler: the error holds the tensors of the step that failed
        self.replays = False
        if self.grad_scaler is not None:
            forget_step(self.grad_scaler, self.device)
        training_graphs.drop(self.bare_network, inference=False)
        torch.cuda.empty_cache()
        self.print_to_log_file("training goes on without CUDA graphs, which left too little memory")
        return super().train_step(batch)

    def _non_finite(self, batch: dict, what: str) -> NonFiniteLossError:
        def forward(data: torch.Tensor) -> Any:
            with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():
                return self.bare_network(data)

        origin = first_non_finite(self.bare_network, batch["data"].to(self.device), forward)
        message = (
            f"{what} in iteration {self.iteration} (epoch {self.current_epoch}) with {self.describe_path()}: {origin}. "
            f"Checkpoints written so far are kept; continue with --c."
        )
        self.print_to_log_file(message)
        return NonFiniteLossError(message)

    def describe_path(self) -> str:
        """The network and its settings of this moment, for messages."""
        return f"network {type(self.bare_network).__name__}"


def forget_step(scaler: torch.amp.GradScaler, device: torch.device) -> None:
    """Makes a gradient scaler ready for another step after one that failed anywhere; its scale stays.

    It would refuse to unscale gradients a second time in what it takes for the same step.
    """
    # a scaler that has scaled nothing yet cannot be updated
    scaler.scale(torch.zeros((), device=device))
    scaler.update(scaler.get_scale())


def build_from_plans(
    network_class: str,
    plans_manager: Any,
    configuration_manager: Any,
    num_input_channels: int,
    num_output_channels: int,
    enable_deep_supervision: bool,
    **changed: Any,
) -> nn.Module:
    """Builds `network_class` with the plans' arguments, `changed` added; refuses plans of another network."""
    planned = configuration_manager.network_arch_class_name
    if planned.rpartition(".")[-1] != NETWORK_CLASS.rpartition(".")[-1]:
        raise ValueError(
            f"the plans {plans_manager.plans_name!r} hold the network {planned}, SliceMamba's trainers need plans of a "
            f"SliceMamba planner: run 'slicemamba plan' and pass its plans with -p, e.g. -p nnUNetSliceMambaPlans"
        )
    return get_network_from_plans(
        network_class,
        {**configuration_manager.network_arch_init_kwargs, **changed},
        configuration_manager.network_arch_init_kwargs_req_import,
        num_input_channels,
        num_output_channels,
        allow_init=True,
        deep_supervision=enable_deep_supervision,
    )
