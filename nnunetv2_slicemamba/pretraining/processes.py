"""Processes of a training: one, or those that torchrun started on any number of GPUs and nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_slicemamba.common.launcher import launcher_number
from nnunetv2_slicemamba.common.library_errors import library_errors
from nnunetv2_slicemamba.planning.selection import choose_device


@dataclass(frozen=True)
class Processes:
    """This process among those of a training. rank: its number out of `world`. device: its own."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """True if this is the process that writes and prints."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with gradients averaged over the processes."""
        if self.world == 1:
            return network
        ids = [self.device.index] if self.device.type == "cuda" else None
        # the only buffer, the slicing, is the same everywhere
        return DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True)

    def total(self, values: Tensor) -> Tensor:
        """The sum of a tensor over the processes."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """True if a flag is raised in any process."""
        return bool(self.total(torch.tensor(float(flag), device=self.device))) if self.world > 1 else flag

    def wait(self) -> None:
        """Waits until every process has come here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """Processes as torchrun's environment describes them; a single one without it.

    device: "auto", "cuda" or "cpu", of every process; with CUDA, process i of a node takes its GPU i. NCCL joins GPUs,
    Gloo CPUs. Raises InputError for a device that is not there.
    """
    chosen = choose_device(device)
    world = launcher_number("WORLD_SIZE", 1, least=1)
    if world == 1:
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", launcher_number("LOCAL_RANK", below=torch.cuda.device_count()))
        torch.cuda.set_device(chosen)
    else:
        # choose_device gave all cores to this one of several processes
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // launcher_number("LOCAL_WORLD_SIZE", world, least=1)))
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    with library_errors("torch", "the processes of the pretraining cannot meet", "start all of them with torchrun"):
        dist.init_process_group(backend, timeout=timedelta(minutes=30))
    try:
        yield Processes(dist.get_rank(), world, chosen)
    finally:
        dist.destroy_process_group()
