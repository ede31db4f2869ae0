"""One training of the published experiment, for paper.py: a plain PyTorch loop that goes on from its checkpoint.

    python benchmarks/paper_training.py ORDER.json

ORDER.json has the fields of Order. Progress and results are in notes.json of its folder. A training that would not end
its next epoch until `until`, on the clock of time.time, writes a checkpoint and exits with OUT_OF_TIME.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accuracy_training import OUT_OF_TIME, Notes, peak_memory
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from network_gpu import nnunet_network
from paper_data import Images, augmented, split_of
from paper_table import NNUNET, RECOMMENDED, SUPERNET
from torch import Tensor, nn
from torch.nn import functional as F

from nnunetv2_slicemamba import slicemamba_unet
from nnunetv2_slicemamba.evaluation.confusion import Counts
from nnunetv2_slicemamba.evaluation.metrics import POOLED_METRICS
from nnunetv2_slicemamba.nets import SliceMambaSupernet, Supernet, training_graphs
from nnunetv2_slicemamba.nets.base import SliceMambaBase
from nnunetv2_slicemamba.trainers.recorded_network import RecordedNetwork

CHECKPOINT, EVERY = "checkpoint.pt", 120.0  # seconds between two checkpoints: a supernet's has 1.7 GB


@dataclass(frozen=True)
class Order:
    """A training. arm: see paper.ARMS. slicing: of the paper's network, thicknesses per block or one for all.

    repeat: seeds weights, order and augmentation. size, pixels, epochs, batch: the published ones unless it is a trial.
    """

    suite: str
    folder: str
    data: str
    arm: str
    slicing: Any
    repeat: int = 1
    epochs: int = 300
    batch: int = 32
    pixels: int = 256
    size: str = "L"
    device: str = "cuda"
    half: bool = True
    until: float = math.inf


def learning_rate(epoch: int) -> float:
    """PyTorch's CosineAnnealingLR with T_max 50: down to the lowest rate and up again, every 100 epochs."""
    return 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * epoch / 50)) / 2


def losses(logits: Tensor, masks: Tensor) -> Tensor:
    """(B,) binary cross-entropy plus Dice loss of every image, as VM-UNet's BceDiceLoss."""
    logits, truth = logits.float().flatten(1), masks.flatten(1)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)
    share = logits.sigmoid()
    dice = (2 * (share * truth).sum(1) + 1) / (share.sum(1) + truth.sum(1) + 1)
    return entropy + 1 - dice


def count(logits: Tensor, masks: Tensor) -> Counts:
    """Pixels of all images together; foreground where the sigmoid is at least 0.5."""
    ours, theirs = logits >= 0, masks > 0.5
    tp, n_ours, n_theirs = (int(mask.sum()) for mask in (ours & theirs, ours, theirs))
    return Counts(tp, n_ours - tp, n_theirs - tp, masks.numel() - n_ours - n_theirs + tp)


def pooled(counts: Counts) -> dict[str, float]:
    """The paper's metrics by column: miou, dsc, acc, spe, sen, in percent."""
    return {metric.pooled_head.lower(): 100 * metric.function(counts) for metric in POOLED_METRICS}


def build(order: Order) -> nn.Module:
    """The arm's network with fresh weights, one output channel."""
    shape = {"in_channels": 3, "classes": 1, "patch_size": (order.pixels, order.pixels), "size": order.size}
    if order.arm == NNUNET:
        # nnU-Net's planner halves down to 4 pixels
        n = int(math.log2(order.pixels / 4))
        network = nnunet_network(PlainConvUNet, 3, 1, [[1, 1], *[[2, 2]] * n], [[3, 3]] * (n + 1), 512)
        network.decoder.deep_supervision = False  # type: ignore[union-attr]
    elif order.arm == RECOMMENDED:
        network = slicemamba_unet(network="residual", **shape)  # type: ignore[arg-type]
    else:
        slicing = None if order.slicing is None else [x if isinstance(x, int) else tuple(x) for x in order.slicing]
        network = slicemamba_unet(network="paper", slicing=slicing, **shape)  # type: ignore[arg-type]
        if order.arm == SUPERNET:
            network = SliceMambaSupernet(**network.settings.as_arguments())
    return network.apply(network.initialize)  # type: ignore[arg-type]


class Training:
    """A training as it stands: network, optimiser, and what was measured after every epoch.

    Order of the cases, augmentation, paths and dropped blocks are drawn from the repeat and the epoch alone, so that a
    training that was stopped ends as one that was not.
    """

    def __init__(self, order: Order) -> None:
        self.order, self.device = order, torch.device(order.device)
        split = split_of(Path(order.suite), order.data)
        self.split = split.for_search() if order.arm == SUPERNET else split
        read = lambda cases: Images.read(Path(order.suite), cases, order.pixels, self.device)  # noqa: E731
        self.train, self.tests = read(self.split.train), {name: read(c) for name, c in self.split.tests.items()}
        torch.manual_seed(order.repeat)
        self.network = build(order).to(self.device)
        # fused: it need not wait for the scaler's check of every step
        on_gpu = {"fused": self.device.type == "cuda"}
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3, weight_decay=1e-2, **on_gpu)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=order.half and self.device.type == "cuda")
        self.history: list[dict[str, Any]] = []
        self.step: Callable[[Tensor], Tensor] = self.network
        if self.file.is_file():
            self.load()
        self.is_recorded = False

    def facts(self) -> dict[str, Any]:
        """Cells of its row that are known before the first epoch."""
        gpu = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "none"
        tests = {name: len(cases) for name, cases in self.split.tests.items()}
        return {
            "gpu": gpu.removeprefix("NVIDIA "),
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "cases": {"train": len(self.split.train), "test": tests},
        }

    @property
    def file(self) -> Path:
        return Path(self.order.folder) / CHECKPOINT

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.float16, enabled=self.scaler.is_enabled())

    def batches(self, n: int, order: Tensor | None = None) -> Iterator[Tensor]:
        yield from (torch.arange(n) if order is None else order).split(self.order.batch)

    def record(self, images: Tensor) -> None:
        """Lets training steps replay CUDA graphs where they can; the results are the same."""
        self.is_recorded = True
        if not self.scaler.is_enabled():
            return
        if not isinstance(self.network, SliceMambaBase):
            self.step = RecordedNetwork(self.network)
            return
        reason = training_graphs.unavailable_reason(self.network, self.device)
        if reason is None:
            try:
                training_graphs.record(self.network, images)
            except RuntimeError as error:
                training_graphs.drop(self.network, inference=False)
                reason = str(error)
        if reason is not None:
            print(f"training goes on without CUDA graphs: {reason}", flush=True)

    def epoch(self) -> float:
        """Trains for an epoch; the mean loss."""
        number = len(self.history)
        seed = 1_000_003 * self.order.repeat + number
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number)
        self.network.train()
        total = torch.zeros((), device=self.device)
        for chosen in self.batches(0, torch.randperm(len(self.train.pixels), generator=generator)):
            # before the forward pass: a graph copies the gradients that are left
            self.optimizer.zero_grad(set_to_none=True)
            images, masks = augmented(*self.train.batch(chosen), generator)
            with self.autocast():
                if not self.is_recorded:
                    self.record(images)
                    torch.manual_seed(seed)
                if isinstance(self.network, Supernet):
                    self.network.sample_architecture(generator)
                loss = losses(self.step(images), masks).mean()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            total += loss.detach() * len(chosen)
        if isinstance(self.network, Supernet):
            self.network.restore_architecture()
        return float(total) / len(self.train.pixels)

    @torch.no_grad()
    def evaluate(self, images: Images) -> dict[str, Any]:
        """Mean loss of the images and their pixels together."""
        self.network.eval()
        loss, counts = 0.0, Counts(0, 0, 0, 0)
        for chosen in self.batches(len(images.pixels)):
            data, masks = images.batch(chosen)
            with self.autocast():
                logits = self.network(data)
            loss += float(losses(logits, masks).sum())
            counts += count(logits, masks)
        return {"loss": loss / len(images.pixels), **asdict(counts)}

    def run(self, notes: Notes) -> bool:
        """Trains to the end, or as long as there is time; whether it is the end."""
        took, saved = 0.0, time.time()
        while len(self.history) < self.order.epochs:
            began = time.time()
            if began + 1.2 * took > self.order.until:
                self.save()
                return False
            loss = self.epoch()
            if not math.isfinite(loss):
                epoch = len(self.history) + 1
                raise FloatingPointError(f"the training has diverged: the mean loss of epoch {epoch} is {loss}")
            tests = {name: self.evaluate(images) for name, images in self.tests.items()}
            took = time.time() - began
            self.history.append({"train_loss": loss, "seconds": took, "tests": tests})
            if time.time() - saved > EVERY or len(self.history) == self.order.epochs:
                self.save()
                saved = time.time()
            memory = peak_memory(self.device, notes.content.get("memory", {}))
            notes.write(phase="training", epochs=self.history, memory=memory)
        return True

    def save(self) -> None:
        content = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        content |= {"scaler": self.scaler.state_dict(), "history": self.history, "order": self.identity()}
        torch.save(content, self.file.with_suffix(".part"))
        os.replace(self.file.with_suffix(".part"), self.file)

    def load(self) -> None:
        content = torch.load(self.file, map_location=self.device, weights_only=True)
        if content["order"] != self.identity():
            raise ValueError(f"{self.file} is of {content['order']}, not of {self.identity()}; move it away")
        self.network.load_state_dict(content["network"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        self.history = content["history"]

    def identity(self) -> dict[str, Any]:
        """Settings that a checkpoint's training must share with this one."""
        kept = asdict(self.order)
        return {key: kept[key] for key in kept if key not in ("suite", "folder", "device", "until", "epochs")}


def best_epoch(history: Sequence[dict[str, Any]], test: str) -> int:
    """The epoch, from 1, with the least loss on the test images: what the published code reports."""
    return 1 + min(range(len(history)), key=lambda i: history[i]["tests"][test]["loss"])


def lowest_rate_epoch(done: int) -> int:
    """The latest of `done` epochs, from 1, with the lowest rate: 251 of 300."""
    rates = [round(learning_rate(epoch), 9) for epoch in range(done)]
    return done - rates[::-1].index(min(rates))


def pooled_at(history: Sequence[dict[str, Any]], test: str, epoch: int) -> dict[str, float]:
    """The paper's metrics after an epoch, from 1."""
    found = history[epoch - 1]["tests"][test]
    return pooled(Counts(**{key: found[key] for key in ("tp", "fp", "fn", "tn")}))


def main(order: Order) -> int:
    notes = Notes(Path(order.folder) / "notes.json")
    notes.write(phase="preparing")
    training = Training(order)
    notes.write(**training.facts())
    if not training.run(notes):
        notes.write(phase="out of time")
        return OUT_OF_TIME
    if isinstance(training.network, Supernet):
        from paper_search import search

        training_graphs.drop(training.network, inference=True)
        found = search(training, notes)
        if found is None:
            notes.write(phase="out of time")
            return OUT_OF_TIME
        notes.write(**found)
    notes.write(phase="done")
    return 0


if __name__ == "__main__":
    torch.backends.cudnn.benchmark = True  # as nnU-Net's trainings
    sys.exit(main(Order(**json.loads(Path(sys.argv[1]).read_text()))))
