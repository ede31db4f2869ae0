"""One of several processes that train a supernet on their shares of the same batches: `ddp_step.py RANK STORE OUT`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch import distributed as dist

from nnunetv2_slicemamba.common.stopping import handling_signals
from nnunetv2_slicemamba.nets import SliceMambaSupernet
from nnunetv2_slicemamba.trainers.interruptible import InterruptibleTraining
from nnunetv2_slicemamba.trainers.replicas import Replica, average_gradients
from nnunetv2_slicemamba.trainers.supernet import path_generator

PROCESSES, ITERATIONS = 2, 4


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


class Stopping(InterruptibleTraining):
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
    """The last process gets a signal in its third step; the step after which this one ended, and its exit code."""
    trainer = Stopping(rank, out)
    with handling_signals(trainer._ask_to_stop):
        for step in range(6):
            if step == 2 and rank == PROCESSES - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            try:
                trainer.stop_if_asked()
            except SystemExit as ended:
                return step, ended.code
    return -1, None


def main() -> None:
    rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=PROCESSES)
    supernet = make_network()
    paths = train(Replica(supernet), supernet, slice(2 * rank, 2 * rank + 2))
    torch.save({"paths": paths, "weights": supernet.state_dict(), "stopped": stop(rank, out)}, f"{out}.{rank}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
