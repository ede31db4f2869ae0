"""Training loop: steps that are functions of their number, validation, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunetv2_slicemamba.pretraining.images import Loading, reseed
from nnunetv2_slicemamba.pretraining.processes import Processes
from nnunetv2_slicemamba.pretraining.recipe import Recipe
from nnunetv2_slicemamba.pretraining.training_log import TrainingLog
from nnunetv2_slicemamba.pretraining.training_state import TrainingState

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Saving:
    """Place and time of checkpoints: into folder, `seconds` after the last one, looked at every `every` steps.

    identity: what a checkpoint must have in common with the training that goes on from it.
    """

    folder: Path
    identity: Mapping[str, Any]
    seconds: float = 600.0
    every: int = 50


class Stopped(Exception):
    """Stop that a signal asked for; everything is saved."""


class Augmentation:
    """Augmentation of uint8 batches on the device: normalised, erased, mixed; timm's Mixup and RandomErasing."""

    def __init__(self, recipe: Recipe, classes: int, device: torch.device) -> None:
        from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, Mixup
        from timm.data.random_erasing import RandomErasing

        scale = [
            torch.tensor(v, device=device).view(1, 3, 1, 1) * 255 for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        ]
        self.mean, self.deviation = scale
        self.device, self.recipe = device, recipe
        self.erase = RandomErasing(recipe.erase_probability, mode="pixel", max_count=1, device=str(device))
        self.mix = Mixup(
            recipe.mixup,
            recipe.cutmix,
            prob=recipe.mix_probability,
            switch_prob=recipe.cutmix_probability,
            mode="batch",
            label_smoothing=recipe.label_smoothing,
            num_classes=classes,
        )

    def normalised(self, images: Tensor) -> Tensor:
        """uint8 images as floats on the device, less ImageNet's mean and over its deviation."""
        return (images.to(self.device, non_blocking=True).float() - self.mean) / self.deviation

    def __call__(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """(images float, targets: soft if images are mixed, else classes)."""
        images, classes = self.normalised(images), classes.to(self.device, non_blocking=True)
        if self.recipe.erase_probability > 0:
            images = self.erase(images)
        return self.mix(images, classes) if self.recipe.mixes else (images, classes)


class Training:
    """Trains a classifier by the recipe; `state` is restored before `run`."""

    def __init__(
        self, network: nn.Module, recipe: Recipe, classes: int, loading: Loading, processes: Processes
    ) -> None:
        from timm.optim import param_groups_weight_decay
        from timm.scheduler import CosineLRScheduler
        from timm.utils import ModelEmaV3

        self.recipe, self.loading, self.processes, self.classes = recipe, loading, processes, classes
        device = processes.device
        scale = loading.images_per_step / 512
        network = network.to(device)
        optimizer = torch.optim.AdamW(
            param_groups_weight_decay(network, recipe.weight_decay),
            lr=recipe.learning_rate * scale,
            betas=recipe.betas,
            eps=recipe.epsilon,
            fused=device.type == "cuda",
        )
        self.total = recipe.epochs * loading.steps_per_epoch
        warmup = recipe.warmup_epochs * loading.steps_per_epoch
        self.schedule = CosineLRScheduler(
            optimizer,
            t_initial=self.total - warmup,
            lr_min=recipe.least_learning_rate * scale,
            warmup_t=warmup,
            warmup_lr_init=recipe.warmup_learning_rate * scale,
            warmup_prefix=True,
            t_in_epochs=False,
        )
        scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self.state = TrainingState(network, ModelEmaV3(network, recipe.average_decay), optimizer, scaler)
        self.wrapped = processes.wrap(network)
        self.augment = Augmentation(recipe, classes, device)
        self.criterion = self._criterion()

    def _criterion(self) -> nn.Module:
        from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

        # mixed targets are smoothed already
        return (
            SoftTargetCrossEntropy() if self.recipe.mixes else LabelSmoothingCrossEntropy(self.recipe.label_smoothing)
        )

    def autocast(self) -> torch.autocast:
        """Context of the recipe's precision."""
        precision = self.recipe.precision
        return torch.autocast(self.processes.device.type, DTYPES[precision], enabled=precision != "fp32")

    def run(
        self, log: TrainingLog, saving: Saving, signals: list[int], best_changed: Callable[[nn.Module], None]
    ) -> None:
        """Trains to the end, from wherever the state is. best_changed: called by the first process with the weights.

        Raises Stopped once a signal was noticed and everything saved.
        """
        state, per_epoch = self.state, self.loading.steps_per_epoch
        while state.validated < self.recipe.epochs:
            epoch = state.validated
            if state.step < (epoch + 1) * per_epoch:
                self._epoch(epoch, log, saving, signals)
            figures = self.validate()
            state.validated += 1
            self._keep_best(epoch, figures, saving, best_changed)
            log.epoch(state.step, epoch, figures)
            self._save(saving)

    def _epoch(self, epoch: int, log: TrainingLog, saving: Saving, signals: list[int]) -> None:
        state, per_epoch = self.state, self.loading.steps_per_epoch
        batches = self.loading.epoch(epoch, state.step - epoch * per_epoch)
        saved, losses, rates = time.monotonic(), [], []
        self.wrapped.train()
        last = (epoch + 1) * per_epoch
        while state.step < last:
            losses.append(self._step(batches))
            rates.append(float(state.optimizer.param_groups[0]["lr"]))
            state.step += 1
            if len(losses) < saving.every and state.step < last:
                continue
            # only here the host waits for the device
            means = (self.processes.total(torch.stack(losses)) / self.processes.world).tolist()
            log.steps(state.step - len(losses), means, rates, self.loading.images_per_step, epoch)
            if not all(map(torch.isfinite, torch.tensor(means))):
                raise RuntimeError(
                    f"the loss is not finite at step {state.step}; {saving.folder} holds the last checkpoint. "
                    "Go on from it with --precision bf16, or train anew with a smaller learning rate"
                )
            losses, rates = [], []
            if self.processes.any(bool(signals)):
                self._save(saving)
                raise Stopped
            # their clocks differ, and all must come to the barrier
            if self.processes.any(time.monotonic() - saved >= saving.seconds):
                self._save(saving)
                saved = time.monotonic()

    def _step(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
        """One step of the optimiser; returns this process's mean loss, on the device."""
        state, recipe = self.state, self.recipe
        self.schedule.step_update(state.step)
        total = torch.zeros((), device=self.processes.device)
        for part in range(recipe.accumulate):
            images, classes = next(batches)
            reseed(0, recipe.seed, state.step, part, self.processes.rank)
            images, targets = self.augment(images, classes)
            last = part == recipe.accumulate - 1
            with nullcontext() if last or self.processes.world == 1 else self.wrapped.no_sync():  # type: ignore[operator]
                with self.autocast():
                    output = self.wrapped(images)
                loss = self.criterion(output.float(), targets) / recipe.accumulate
                state.scaler.scale(loss).backward()
            total += loss.detach()
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(self.wrapped.parameters(), recipe.clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        state.average.update(state.network)
        return total

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss, top-1 and top-5 in % over all validation images, of the weights and of their moving average."""
        counts = torch.zeros(7, dtype=torch.float64, device=self.processes.device)
        networks = (self.state.network.eval(), self.state.average.module.eval())
        for images, classes in self.loading.validation():
            normalised, wanted = self.augment.normalised(images), classes.to(self.processes.device)
            for i, network in enumerate(networks):
                with self.autocast():
                    output = network(normalised)
                output = output.float()
                ranked = output.topk(min(5, self.classes), dim=1).indices == wanted[:, None]
                counts[3 * i] += F.cross_entropy(output, wanted, reduction="sum")
                counts[3 * i + 1] += ranked[:, 0].sum()
                counts[3 * i + 2] += ranked.sum()
            counts[6] += len(wanted)
        *sums, n = self.processes.total(counts).tolist()
        names = ("loss", "top1", "top5", "ema_loss", "ema_top1", "ema_top5")
        return {name: value / n * (1 if "loss" in name else 100) for name, value in zip(names, sums, strict=True)}

    def _keep_best(
        self, epoch: int, figures: Mapping[str, float], saving: Saving, best_changed: Callable[[nn.Module], None]
    ) -> None:
        state = self.state
        average = figures["ema_top1"] >= figures["top1"]
        top1 = figures["ema_top1" if average else "top1"]
        if state.best and top1 <= state.best["top1"]:
            return
        state.best = {"epoch": epoch, "top1": top1, "weights": "average" if average else "trained"}
        if self.processes.first:
            network = state.average.module if average else state.network
            state.save_best(saving.folder, network)
            best_changed(network)

    def _save(self, saving: Saving) -> None:
        if self.processes.first:
            self.state.save(saving.folder, saving.identity)
        self.processes.wait()
