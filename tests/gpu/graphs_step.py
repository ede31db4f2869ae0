"""One of the processes that share each batch: `graphs_step.py BACKEND PROCESSES RANK STORE OUT KIND`.

By gloo they share one GPU, by NCCL each has its own.
"""

from __future__ import annotations

import sys

import torch
from torch import distributed as dist
from torch import nn

from nnunetv2_slicemamba.nets import SliceMambaSupernet, SliceMambaUNet, training_graphs
from nnunetv2_slicemamba.nets.cuda_graphs import TrainingGraph
from nnunetv2_slicemamba.nets.network_graphs import BlockGraphs
from nnunetv2_slicemamba.trainers.replicas import Replica, average_gradients
from nnunetv2_slicemamba.trainers.supernet import path_generator

BATCH, ITERATIONS, PATHS = 4, 12, 2
SIZES = (1, 2, 2, (16, 32), ((4, 4), (2, 2)), (1, 1), (1, 1))
KINDS = {"network": SliceMambaUNet, "supernet": SliceMambaSupernet}


def make_network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return KINDS[kind](*SIZES, drop_path_rate=0.0, deep_supervision=True).cuda().train()


def batch(iteration: int) -> torch.Tensor:
    return torch.randn(BATCH, 1, 32, 48, generator=torch.Generator().manual_seed(iteration)).cuda()


def train(network: nn.Module, bare: nn.Module, share: slice) -> list[float]:
    """Losses of plain gradient descent in float32, which shows every gradient in the weights."""
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    losses = []
    for iteration in range(ITERATIONS):
        if isinstance(bare, SliceMambaSupernet):
            bare.sample_architecture(path_generator(7, iteration % PATHS))
        optimizer.zero_grad()
        outputs = network(batch(iteration)[share])
        loss = sum((o - 1).square().mean() for o in outputs)
        loss.backward()
        if dist.is_initialized():
            average_gradients(network.parameters())
        optimizer.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    backend, processes, rank, store, out, kind = sys.argv[1:]
    torch.cuda.set_device(int(rank) if backend == "nccl" else 0)
    each, first = BATCH // int(processes), int(rank) * BATCH // int(processes)
    dist.init_process_group(backend, init_method=f"file://{store}", rank=int(rank), world_size=int(processes))
    bare = make_network(kind)
    network = Replica(bare)
    share = slice(first, first + each)
    replays = 0
    call = TrainingGraph.__call__

    def counted(graph: TrainingGraph, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        nonlocal replays
        replays += 1
        return call(graph, x)

    TrainingGraph.__call__ = counted
    BlockGraphs.HEADROOM = 0.0
    training_graphs.record(bare, batch(0)[share])
    losses = train(network, bare, share)
    torch.save({"losses": losses, "weights": bare.state_dict(), "replays": replays}, f"{out}.{rank}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
