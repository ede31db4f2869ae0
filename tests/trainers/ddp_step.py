"""One of several processes that train a supernet on their shares of the same batches: `ddp_step.py RANK STORE OUT`."""

from __future__ import annotations

import sys

import torch
from torch import distributed as dist

from nnunetv2_slicemamba.nets import SliceMambaSupernet
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


def main() -> None:
    rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=PROCESSES)
    supernet = make_network()
    paths = train(Replica(supernet), supernet, slice(2 * rank, 2 * rank + 2))
    torch.save({"paths": paths, "weights": supernet.state_dict()}, f"{out}.{rank}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
