"""CUDA graphs of training steps: the networks that can replay them, and the start and end of it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from nnunetv2_slicemamba.nets.base import SliceMambaBase
from nnunetv2_slicemamba.nets.cuda_graphs import is_roomy, switched_off
from nnunetv2_slicemamba.nets.network_graphs import BlockGraphs
from nnunetv2_slicemamba.nets.s3block import S3Block
from nnunetv2_slicemamba.nets.sliced import SlicedNetwork
from nnunetv2_slicemamba.ops.backends import block_backend
from nnunetv2_slicemamba.ops.dtypes import block_dtype


def unavailable_reason(network: SliceMambaBase, device: torch.device) -> str | None:
    """Reason why training steps of `network` cannot replay CUDA graphs on `device`, None if they can."""
    if device.type != "cuda":
        return f"{device.type} has no CUDA graphs"
    if switched_off():
        return "SLICEMAMBA_GRAPHS is 0"
    # blocks that do not scan, and none, need no kernels of ours
    scans = network.n_blocks > 0 and network.settings.scan
    if scans and block_backend(device, block_dtype(torch.get_autocast_dtype(device.type))) is None:
        return "the blocks do not run by the CUDA backend's kernels"
    if any(block.checkpointed for block in network.modules() if isinstance(block, S3Block)):
        return "the plans ask for activation checkpointing"
    return None


def record(network: SliceMambaBase, data: Tensor) -> None:
    """Makes training steps of `network` on batches like `data` replay CUDA graphs, under the present autocast.

    The final network is recorded as a whole. The supernet's path changes with every step: its blocks are recorded one
    by one, each when it is first drawn. RuntimeError if recording fails; the network then trains as before.
    """
    if isinstance(network, SlicedNetwork):
        network.graphs.inference = False
        network.record_training(data)
        network.graphs.inference = is_roomy(data.device)  # for validation after each epoch
        return
    for position in network.block_positions():
        assert isinstance(position, Iterable)
        shared = BlockGraphs()
        for block in position:
            if isinstance(block, S3Block):  # else the identity
                block.graphs = shared


def drop(network: SliceMambaBase, inference: bool) -> None:
    """Ends what `record` began and frees its memory. inference: whether prediction may make graphs from now on."""
    if isinstance(network, SlicedNetwork):
        network.graphs.drop()
        network.graphs.inference = inference
    for block in network.modules():
        if isinstance(block, S3Block):
            block.graphs = None
