"""This process's place among the processes of a job.

The launcher is torchrun, or any that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT as it does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.launcher import launcher_number


@dataclass(frozen=True)
class Process:
    """A process's place.

    rank: 0 is the writer. world: number of processes. local_rank, local_world: the same on this machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Process:
        """This process as the launcher describes it; alone without one. InputError for what cannot be one."""
        world = launcher_number("WORLD_SIZE", 1, least=1, environ=environ)
        if world == 1:
            return cls()
        rank = launcher_number("RANK", below=world, environ=environ)
        local_world = launcher_number("LOCAL_WORLD_SIZE", world, least=1, below=world + 1, environ=environ)
        return cls(rank, world, launcher_number("LOCAL_RANK", rank, below=world, environ=environ), local_world)

    @property
    def is_writer(self) -> bool:
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """This process's own GPU, or its share of the CPU's threads. InputError if the machine has too few GPUs."""
        if self.world == 1:
            return device
        if device.type != "cuda":
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.local_world))
            return device
        n = torch.cuda.device_count()
        if self.local_rank >= n:
            raise InputError(
                f"{self.local_world} processes on this machine need a GPU each, it has {n}: give torchrun "
                f"--nproc-per-node {n}"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)
