"""Base of our trainers: recipes, averaged weights, safe checkpoints, deep supervision scales, the finite check."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn
from torch._dynamo import OptimizedModule

from nnunetv2_slicemamba.common.library_errors import first_line
from nnunetv2_slicemamba.common.names import NETWORK_CLASSES, class_name
from nnunetv2_slicemamba.nets import training_graphs
from nnunetv2_slicemamba.nets.base import SliceMambaBase
from nnunetv2_slicemamba.nets.resolutions import output_scales
from nnunetv2_slicemamba.nets.s3block import S3Block
from nnunetv2_slicemamba.planning.first_stage import require_predictions
from nnunetv2_slicemamba.trainers.averaging import WeightAverage
from nnunetv2_slicemamba.trainers.finished_epoch import bare
from nnunetv2_slicemamba.trainers.finite import GuardedLoss, NonFiniteLossError, first_non_finite
from nnunetv2_slicemamba.trainers.gpu_augment import GPUAugmentation
from nnunetv2_slicemamba.trainers.gradient_watch import WatchfulScaler
from nnunetv2_slicemamba.trainers.mixed_optimizer import MixedOptimizer
from nnunetv2_slicemamba.trainers.parameter_groups import only, parameter_groups
from nnunetv2_slicemamba.trainers.recipe import OPTIMIZER_OF, RECIPES, make_schedule
from nnunetv2_slicemamba.trainers.replicas import AveragingScaler, Replica
from nnunetv2_slicemamba.trainers.safe_loading import SafeLoading
from nnunetv2_slicemamba.trainers.same_network import SameNetwork
from nnunetv2_slicemamba.trainers.same_optimizer import SameOptimizer
from nnunetv2_slicemamba.trainers.schedule import IterationScheduler


class SliceMambaBaseTrainer(SameOptimizer, SameNetwork, SafeLoading, GPUAugmentation):
    """nnU-Net's trainer with SliceMamba's optimiser and guards; subclasses say which network and which slicing.

    Class attributes are the settings that variants change: nnU-Net rebuilds trainers from constructor arguments
    that subclasses must not extend.
    """

    role: ClassVar[str]  # see trainers.roles
    # a supernet's arguments beside those of the plans; None for the planned network itself
    supernet_arguments: ClassVar[Mapping[str, Any] | None] = None
    grad_scaler: torch.amp.GradScaler | None
    # None stands for the network's own; see trainers.recipe
    optimizer_name: ClassVar[str | None] = None
    learning_rate: ClassVar[float | None] = None
    decay: ClassVar[float | None] = None
    decays_all: ClassVar[bool | None] = None
    betas: ClassVar[tuple[float, float] | None] = None
    momentum: ClassVar[float | None] = None
    block_learning_rate: ClassVar[float | None] = None
    block_decay: ClassVar[float | None] = None
    warmup_iterations: ClassVar[int | None] = None
    schedule: ClassVar[str | None] = None
    # of an exponential moving average of the weights, with which is validated and predicted; None for no average
    ema_decay: ClassVar[float | None] = None
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
        self.initial_lr = self.setting("learning_rate")
        self.weight_decay = self.setting("decay")
        self.num_epochs = self.epochs
        self.num_iterations_per_epoch = self.iterations_per_epoch
        self.num_val_iterations_per_epoch = self.validation_iterations
        self.enable_deep_supervision = self.deep_supervision
        self.save_every = 10
        self.iteration = 0
        self.tried_to_record = self.replays = False
        self.average: WeightAverage | None = None
        if self.grad_scaler is not None:
            self.grad_scaler = WatchfulScaler(self.device.type)

    def setting(self, name: str) -> Any:
        """A setting of the recipe: the trainer's own, else that of its optimiser's recipe; `Recipe` names them."""
        own = getattr(self, name)
        return getattr(RECIPES[self.optimizer_used], name) if own is None else own

    @property
    def optimizer_used(self) -> str:
        """Key of RECIPES: the trainer's own, else that of the planned network. ValueError for one that there is not."""
        network = class_name(self.configuration_manager.network_arch_class_name)
        name = self.optimizer_name or OPTIMIZER_OF.get(network, "adamw")
        if name not in RECIPES:
            raise ValueError(f"optimizer_name {name!r} does not exist; give one of {', '.join(RECIPES)}")
        return name

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The planned network, or its supernet, with the plans' arguments; refuses plans of another network."""
        planned = configuration_manager.network_arch_class_name
        if class_name(planned) not in NETWORK_CLASSES:
            raise ValueError(
                f"the plans {plans_manager.plans_name!r} hold the network {planned}, SliceMamba's trainers need plans "
                f"of a SliceMamba planner: run 'slicemamba plan' and pass its plans, e.g. -p "
                "nnUNetSliceMambaResidualPlans"
            )
        final, supernet = NETWORK_CLASSES[class_name(planned)]
        return get_network_from_plans(
            final if cls.supernet_arguments is None else supernet,
            {**configuration_manager.network_arch_init_kwargs, **(cls.supernet_arguments or {})},
            configuration_manager.network_arch_init_kwargs_req_import,
            num_input_channels,
            num_output_channels,
            allow_init=True,
            deep_supervision=enable_deep_supervision,
        )

    def _do_i_compile(self) -> bool:
        # nnU-Net compiles by default; ours only on request: CUDA graphs save more and cost seconds
        asked = os.environ.get("nnUNet_compile", "").lower() in ("true", "1", "t")
        return asked and super()._do_i_compile()

    @property
    def bare_network(self) -> SliceMambaBase:
        """The network without the wrappers of several processes and of torch.compile."""
        network = bare(self.network, self.is_ddp)
        assert isinstance(network, SliceMambaBase)
        return network

    def initialize(self) -> None:
        super().initialize()
        if self.is_ddp:
            # nnU-Net's wrapper has given all processes the same weights
            self.network = Replica(self.network.module)
            self.grad_scaler = AveragingScaler(self.network.parameters())
        if isinstance(self.lr_scheduler, IterationScheduler):
            self.lr_scheduler.keep_rates_of_groups()
        if self.ema_decay is not None:
            self.average = WeightAverage(self.bare_network, self.ema_decay, self.optimizer)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        groups = parameter_groups(self.network, self.weight_decay, self.rate_factors, self.setting("decays_all"))
        optimizer = self.make_optimizer(groups)
        length = (self.num_epochs, self.num_iterations_per_epoch)
        rates = make_schedule(self.setting("schedule"), self.initial_lr, self.setting("warmup_iterations"), *length)
        return optimizer, IterationScheduler(optimizer, rates, self.num_iterations_per_epoch)

    def make_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser of the recipe for all groups of parameters."""

        def adamw(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
            on_gpu = self.device.type == "cuda"
            return torch.optim.AdamW(groups, lr=self.initial_lr, betas=self.setting("betas"), fused=on_gpu)

        def sgd(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
            return torch.optim.SGD(groups, lr=self.initial_lr, momentum=self.setting("momentum"), nesterov=True)

        if self.optimizer_used in ("adamw", "adamw-cosine"):
            return adamw(groups)
        if self.optimizer_used == "sgd":
            return sgd(groups)
        # the network has no wrapper yet that nnU-Net puts around it for several GPUs
        blocks = {p for part in self.network.modules() if isinstance(part, S3Block) for p in part.parameters()}
        factor = self.setting("block_learning_rate") / self.initial_lr
        factors = {end: factor * own for end, own in self.rate_factors.items()}
        of_blocks = parameter_groups(self.network, self.setting("block_decay"), factors, rate_factor=factor)
        parts = (sgd, only(groups, lambda p: p not in blocks)), (adamw, only(of_blocks, lambda p: p in blocks))
        return MixedOptimizer([make(own) for make, own in parts if own])

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        # nnU-Net derives the scales from strides whose first keeps the resolution, as a residual network's does; others
        # start with the patch embedding or the stem, while the first output is at full resolution all the same
        network = class_name(self.configuration_manager.network_arch_class_name)
        if not self.enable_deep_supervision or network == "SliceMambaResidualUNet":
            return super()._get_deep_supervision_scales()
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

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        # nnU-Net would miss a first stage's prediction in a worker, which ends without a word to the training
        datasets: tuple[Any, Any] = super().get_tr_and_val_datasets()
        if self.folder_with_segs_from_previous_stage is not None:
            cases = (case for dataset in datasets for case in dataset.identifiers)
            require_predictions(Path(self.folder_with_segs_from_previous_stage), cases)
        return datasets

    def on_train_epoch_start(self) -> None:
        self.iteration = self.current_epoch * self.num_iterations_per_epoch
        super().on_train_epoch_start()

    def on_train_start(self) -> None:
        self.tried_to_record = self.replays = False
        super().on_train_start()
        if self.average is not None:
            self.average.begin()
            self.print_to_log_file(f"validation and checkpoints have averaged weights, decay {self.ema_decay} a step")

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        super().on_train_epoch_end(train_outputs)
        report = self.grad_scaler.report() if isinstance(self.grad_scaler, WatchfulScaler) else None
        if report is not None:
            self.print_to_log_file(report)

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        if self.average is not None:
            self.average.exchange()

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        if self.average is not None:
            self.average.exchange()
        super().on_validation_epoch_end(val_outputs)

    def on_train_end(self) -> None:
        training_graphs.drop(self.bare_network, inference=True)
        super().on_train_end()
        if self.average is not None:
            # for the validation of whole cases, which follows
            self.average.exchange()

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
            why = first_line(error)
            self.print_to_log_file(f"training goes on without CUDA graphs, which could not be recorded: {why}")
        else:
            self.replays = True
            self.print_to_log_file("training steps replay CUDA graphs; SLICEMAMBA_GRAPHS=0 would switch them off")

    def train_step(self, batch: dict) -> dict:
        if not self.tried_to_record:
            self.record_graphs(batch["data"])
        # of a scheduler that a subclass configured, nnU-Net has set the rate of the epoch
        if isinstance(self.lr_scheduler, IterationScheduler):
            self.lr_scheduler.step_iteration(self.iteration)
        result, what = {}, ""
        try:
            result = self.step_or_drop_graphs(batch)
        except FloatingPointError as error:
            what = str(error)
        else:
            what = "" if np.isfinite(result["loss"]) else f"loss {result['loss']}"
        if what and self.failure is None:
            self.fail(NonFiniteLossError(self.describe_non_finite(batch, what)))
        self.iteration += 1
        if self.average is not None:
            self.average.update()
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

    def describe_non_finite(self, batch: dict, what: str) -> str:
        """A message that names a step, its path and the first tensor that is not finite; what: the loss, in words."""

        def forward(data: torch.Tensor) -> Any:
            with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():
                return self.bare_network(data)

        origin = first_non_finite(self.bare_network, batch["data"].to(self.device), forward)
        return (
            f"{what} in iteration {self.iteration} (epoch {self.current_epoch}) with {self.describe_path()}: {origin}. "
            f"Checkpoints written so far are kept; continue with --c."
        )

    def describe_path(self) -> str:
        """The network and its settings of this moment, for messages."""
        return f"network {type(self.bare_network).__name__}"

    def save_checkpoint(self, filename: str) -> None:
        with self.average_in_network():
            super().save_checkpoint(filename)

    def keep_epoch(self) -> None:
        with self.average_in_network():
            super().keep_epoch()

    def average_in_network(self) -> AbstractContextManager[None]:
        """Context in which the network holds what checkpoints do: the averaged weights, if there are any."""
        return nullcontext() if self.average is None else self.average.in_network()


def forget_step(scaler: torch.amp.GradScaler, device: torch.device) -> None:
    """Makes a gradient scaler ready for another step after one that failed anywhere; its scale stays.

    It would refuse to unscale gradients a second time in what it takes for the same step.
    """
    # a scaler that has scaled nothing yet cannot be updated
    scaler.scale(torch.zeros((), device=device))
    scaler.update(scaler.get_scale())
