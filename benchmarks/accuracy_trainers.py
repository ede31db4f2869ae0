"""Trainers that differ from SliceMambaTrainer_20epochs in one setting each: what `accuracy.py` tries out.

They are no part of the package: what wins is built into the trainers there. nnU-Net finds them through accuracy_ext.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch.optim.swa_utils import get_ema_multi_avg_fn

from nnunetv2_slicemamba.slicing.candidates import default_candidates
from nnunetv2_slicemamba.trainers import SliceMambaTrainer
from nnunetv2_slicemamba.trainers.base import SliceMambaBaseTrainer
from nnunetv2_slicemamba.trainers.supernet import path_generator


@contextmanager
def clipping_at(limit: float) -> Iterator[None]:
    """Inside, gradients are clipped at `limit` in place of what the caller asks for; infinity clips nothing.

    nnU-Net's train_step looks `torch.nn.utils.clip_grad_norm_` up when it calls it, with a limit of 12 that stands in
    the middle of the method: replacing the function for the length of a step needs no copy of the step.
    """
    original = torch.nn.utils.clip_grad_norm_

    def clip(parameters: Any, max_norm: float, *args: Any, **kwargs: Any) -> torch.Tensor:
        return original(parameters, limit, *args, **kwargs)

    torch.nn.utils.clip_grad_norm_ = clip
    try:
        yield
    finally:
        torch.nn.utils.clip_grad_norm_ = original


class Tuned(SliceMambaTrainer):
    """20 epochs with the class attributes that are not None in place of SliceMambaTrainer's settings.

    rate: highest learning rate. decay: weight decay. warm_up: iterations. clip: limit of the gradients' norm.
    batch_dice: whether the loss's Dice is one of all the batch's voxels, as the plans may ask, or a mean over samples.
    """

    epochs = 20
    rate: ClassVar[float | None] = None
    decay: ClassVar[float | None] = None
    warm_up: ClassVar[int | None] = None
    clip: ClassVar[float | None] = None
    batch_dice: ClassVar[bool | None] = None

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int | str,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.rate is not None:
            self.initial_lr = self.rate
        if self.decay is not None:
            self.weight_decay = self.decay

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        optimizer, scheduler = super().configure_optimizers()
        if self.warm_up is not None:
            scheduler.schedule = replace(scheduler.schedule, warmup=self.warm_up)
        return optimizer, scheduler

    def _build_loss(self) -> torch.nn.Module:
        if self.batch_dice is None:
            return super()._build_loss()
        # nnU-Net reads it nowhere else, and writes the plans that the trainer got into the results
        planned = self.configuration_manager
        self.configuration_manager = ConfigurationManager({**planned.configuration, "batch_dice": self.batch_dice})
        try:
            return super()._build_loss()
        finally:
            self.configuration_manager = planned

    def train_step(self, batch: dict) -> dict:
        if self.clip is None:
            return super().train_step(batch)
        with clipping_at(self.clip):
            return super().train_step(batch)


class SliceMambaTrainerSgd(Tuned):
    """nnU-Net's SGD: Nesterov momentum 0.99, rate 1e-2, decay 3e-5 of every parameter, PolyLR, no warm-up."""

    rate, decay = 1e-2, 3e-5

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        return super(SliceMambaBaseTrainer, self).configure_optimizers()


class SliceMambaTrainerRate3e4(Tuned):
    rate = 3e-4


class SliceMambaTrainerRate5e4(Tuned):
    rate = 5e-4


class SliceMambaTrainerRate2e3(Tuned):
    rate = 2e-3


class SliceMambaTrainerDecay5e2(Tuned):
    decay = 5e-2


class SliceMambaTrainerNoWarmUp(Tuned):
    warm_up = 1


class SliceMambaTrainerWarmUp1000(Tuned):
    warm_up = 1000


class SliceMambaTrainerClip1(Tuned):
    clip = 1.0


class SliceMambaTrainerNoClip(Tuned):
    clip = float("inf")


class SliceMambaTrainerNoDeep(Tuned):
    deep_supervision = False


class SliceMambaTrainerSampleDice(Tuned):
    batch_dice = False


class SliceMambaTrainerPaths(Tuned):
    """Every second iteration reads the image in slicings drawn at random, one per block, with the same weights.

    The others, validation and prediction have the fold's slicing. Iterations that are drawn run without CUDA graphs.
    """

    seed: ClassVar[int] = 12345

    def train_step(self, batch: dict) -> dict:
        if self.iteration % 2 == 0:
            return super().train_step(batch)
        network = self.sliced_network
        own, candidates = network.get_slicing(), default_candidates(network.n_dims)
        drawn = torch.randint(len(candidates), (len(own),), generator=path_generator(self.seed, self.iteration))
        network.set_slicing([candidates[i] for i in drawn.tolist()])
        try:
            return super().train_step(batch)
        finally:
            network.set_slicing(own)


class SliceMambaTrainerEma(Tuned):
    """Validates, saves and predicts with an exponential moving average of the weights; trains the weights themselves.

    The average lies in the optimiser's state, beside the moments, so that nnU-Net saves and loads it. A checkpoint
    holds the average as `network_weights`, which is what predicts, and the trained weights in the optimiser's state.
    """

    average_decay: ClassVar[float] = 0.999
    KEY = "average"

    def train_step(self, batch: dict) -> dict:
        result = super().train_step(batch)
        # the first steps are left behind quickly
        self._follow(min(self.average_decay, (1 + self.iteration) / (10 + self.iteration)))
        return result

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        averages, weights = [], []
        for weight in self._trained():
            # an optimiser takes a parameter without any state for a new one: it comes first
            state = self.optimizer.state.get(weight)
            if not state:
                continue
            if self.KEY in state:
                averages.append(state[self.KEY])
                weights.append(weight)
            else:
                state[self.KEY] = weight.detach().clone()
        if averages:
            get_ema_multi_avg_fn(decay)(averages, weights, None)

    def _trained(self) -> Iterator[torch.nn.Parameter]:
        for group in self.optimizer.param_groups:
            yield from group["params"]

    @torch.no_grad()
    def exchange(self) -> None:
        """Weights and averages change places, each where the other's memory is, which CUDA graphs rely on."""
        for weight in self._trained():
            average = self.optimizer.state.get(weight, {}).get(self.KEY)
            if average is not None:
                trained = weight.detach().clone()
                weight.copy_(average)
                average.copy_(trained)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the network has the averaged weights."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.exchange()

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        self.exchange()
        super().on_validation_epoch_end(val_outputs)

    def save_checkpoint(self, filename: str) -> None:
        with self.averaged():
            super().save_checkpoint(filename)

    def load_checkpoint(self, filename_or_checkpoint: Any) -> None:
        super().load_checkpoint(filename_or_checkpoint)
        self.exchange()

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        with self.averaged():
            super().perform_actual_validation(save_probabilities)


CANDIDATES: dict[str, type[Tuned]] = {
    name: trainer
    for name, trainer in globals().items()
    if name.startswith("SliceMambaTrainer") and issubclass(trainer, Tuned)
}
