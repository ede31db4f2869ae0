"""One of several processes that train a supernet on their shares of the same batches."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import distributed as dist
from torch import nn

from nnunetv2_slicemamba.common.stopping import handling_signals
from nnunetv2_slicemamba.nets import SliceMambaSupernet
from nnunetv2_slicemamba.trainers.base import SliceMambaBaseTrainer
from nnunetv2_slicemamba.trainers.finite import NonFiniteLossError
from nnunetv2_slicemamba.trainers.interruptible import InterruptibleTraining
from nnunetv2_slicemamba.trainers.replicas import Replica, average_gradients
from nnunetv2_slicemamba.trainers.shared_loss import shared
from nnunetv2_slicemamba.trainers.supernet import path_generator

PROCESSES, ITERATIONS = 2, 4
LOSSES = ("labels", "regions", "ignored", "one output")
UNEQUAL = slice(0, 3), slice(3, None)  # shares of a batch


def make_network() -> SliceMambaSupernet:
    torch.manual_seed(0)
    return SliceMambaSupernet(1, 2, 2, (8, 16), ((4, 4), (2, 2)), (1, 1), (1, 1), drop_path_rate=0.0)


def batch(iteration: int) -> torch.Tensor:
    return torch.randn(2 * PROCESSES, 1, 16, 24, generator=torch.Generator().manual_seed(iteration))


def train(network: torch.nn.Module, supernet: SliceMambaSupernet, share: slice) -> list[tuple]:
    """Architectures; the weights move by plain gradient descent, so that they show every gradient."""
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    paths = []
    for iteration in range(ITERATIONS):
        supernet.sample_architecture(path_generator(7, iteration))
        paths.append(supernet.get_architecture())
        optimizer.zero_grad()
        network(batch(iteration)[share]).square().mean().backward()
        if dist.is_initialized():
            average_gradients(network.parameters())
        optimizer.step()
    return paths


def make_loss(kind: str, ddp: bool, ce: float = 1, weight_dice: float = 1) -> nn.Module:
    """nnU-Net's loss; the second output does not count, as the lowest resolution does not on one GPU."""
    dice = {"batch_dice": True, "smooth": 1e-5, "do_bg": kind == "regions", "ddp": ddp}
    if kind == "regions":
        one: nn.Module = DC_and_BCE_loss({}, dice, use_ignore_label=False, dice_class=MemoryEfficientSoftDiceLoss)
    else:
        ignored = 3 if kind == "ignored" else None
        one = DC_and_CE_loss(dice, {}, ignore_label=ignored, dice_class=MemoryEfficientSoftDiceLoss)
    one.weight_ce, one.weight_dice = ce, weight_dice
    return one if kind == "one output" else DeepSupervisionWrapper(one, (0.7, 0.0, 0.3))


def loss_batch(kind: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Outputs and targets of all processes."""
    generator = torch.Generator().manual_seed(5)
    sizes = [(2 * PROCESSES, 3, size, size) for size in (12, 6, 3)]
    outputs = [torch.randn(size, generator=generator) for size in sizes]
    if kind == "regions":
        return outputs, [torch.rand(size, generator=generator) < 0.3 for size in sizes]
    highest = 4 if kind == "ignored" else 3
    return outputs, [torch.randint(0, highest, (n, 1, h, w), generator=generator) for n, _, h, w in sizes]


def loss_and_gradients(kind: str, loss: nn.Module, share: slice) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The loss's value on a share of the batch, and its gradients."""
    outputs, targets = ([x[share].clone() for x in several] for several in loss_batch(kind))
    for x in outputs:
        x.requires_grad_()
    value = loss(outputs[0], targets[0]) if kind == "one output" else loss(outputs, targets)
    (8 * value).backward()
    return value.detach(), [torch.zeros_like(x) if x.grad is None else x.grad for x in outputs]


def measure_losses(rank: int) -> dict[str, object]:
    """nnU-Net's loss and ours on equal shares, ours on unequal ones too; and how many messages ours sent in all."""
    equal, unequal = slice(2 * rank, 2 * rank + 2), UNEQUAL[rank]
    made: dict[str, object] = {}
    gather, reduce, sent = dist.all_gather, dist.all_reduce, []
    for kind in LOSSES:
        theirs = loss_and_gradients(kind, make_loss(kind, ddp=True), equal)
        dist.all_gather = lambda *tensors, **options: sent.append(1) or gather(*tensors, **options)
        dist.all_reduce = lambda *tensors, **options: sent.append(1) or reduce(*tensors, **options)
        ours = shared(make_loss(kind, ddp=True))
        made[kind] = theirs, *(loss_and_gradients(kind, ours, share) for share in (equal, unequal))
        dist.all_gather, dist.all_reduce = gather, reduce
    return {"losses": made, "sent": len(sent)}


class Steps(nnUNetTrainer):
    """Training steps in the third of which the last process gets a signal."""

    def train_step(self, batch: int) -> dict:
        if batch == 2 and self.local_rank == PROCESSES - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}


class Stopping(InterruptibleTraining, Steps):
    """As much of a trainer as answers a signal; nnU-Net's own knows several processes only on GPUs."""

    def __init__(self, rank: int, out: str) -> None:
        self.local_rank, self.out, self.output_folder = rank, out, "folder"
        self.in_epochs, self.disable_checkpointing, self.current_epoch = True, False, 7
        self.agreement = dist.new_group(backend="gloo")
        self.finished_epoch.content = {"current_epoch": 6}

    def save_checkpoint(self, filename: str) -> None:
        Path(f"{self.out}.{self.local_rank}.saved").write_text(f"{filename} {self.current_epoch}")

    def print_to_log_file(self, *words: object, **_: object) -> None:
        pass


def stop(rank: int, out: str) -> tuple[int, object]:
    """The step after which this process ended, and its exit code."""
    trainer = Stopping(rank, out)
    with handling_signals(trainer._ask_to_stop):
        for step in range(6):
            try:
                trainer.train_step(step)
            except SystemExit as ended:
                return step, ended.code
    return -1, None


class Losses(nnUNetTrainer):
    """Training steps whose loss is NaN where the batch is."""

    def train_step(self, batch: dict) -> dict:
        return {"loss": batch["data"].sum().numpy()}


class Failing(SliceMambaBaseTrainer, Losses):
    """As much of our trainer as looks at the loss."""

    lr_scheduler = average = seed = None
    is_ddp, device, current_epoch, iteration, steps_in_epoch = True, torch.device("cpu"), 1, 4, 0

    def __init__(self, rank: int, network: nn.Module) -> None:
        self.local_rank, self.network, self.logged = rank, Replica(network), []
        self.in_epochs = self.tried_to_record = True
        self.agreement = dist.new_group(backend="gloo")

    def print_to_log_file(self, *words: object, **_: object) -> None:
        self.logged += map(str, words)


def fail(rank: int, network: nn.Module) -> tuple[int, str, list[str], int]:
    """The step in which this process ended, its message, what it logged, and how many messages were sent for the steps.

    In the third step the last process has a batch with NaN.
    """
    trainer, reduce, sent = Failing(rank, network), dist.all_reduce, []
    dist.all_reduce = lambda *tensors, **options: sent.append(1) or reduce(*tensors, **options)
    try:
        for step in range(6):
            data = batch(step)
            if step == 2 and rank == PROCESSES - 1:
                data[0, 0, 3, 3] = float("nan")
            try:
                trainer.train_step({"data": data})
            except NonFiniteLossError as ended:
                return step, str(ended), trainer.logged, len(sent)
        return -1, "", [], len(sent)
    finally:
        dist.all_reduce = reduce


def take_part(rank: int, store: str, out: str) -> None:
    """store: a file where the processes meet. out: beginning of the names of the files of their results."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=PROCESSES)
    supernet = make_network()
    paths = train(Replica(supernet), supernet, slice(2 * rank, 2 * rank + 2))
    result = {"paths": paths, "weights": supernet.state_dict(), **measure_losses(rank)}
    torch.save({**result, "stopped": stop(rank, out), "failed": fail(rank, supernet)}, f"{out}.{rank}")
    dist.destroy_process_group()
