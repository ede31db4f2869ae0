"""nnU-Net's networks in training steps, which replay CUDA graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule

from nnunetv2_slicemamba.nets.cuda_graphs import Outputs, TrainingGraph, switched_off


class RecordedNetwork(nn.Module):
    """A network, compiled or not, whose training passes replay a CUDA graph, recorded at the first of them.

    Only for networks that do the same in every pass, as nnU-Net's do. `reason` says why there is no graph.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.graph: TrainingGraph | None = None
        self.reason = "SLICEMAMBA_GRAPHS is 0" if switched_off() else None

    def forward(self, x: Tensor) -> Any:
        if self.graph is None and self.reason is None:
            self._record(x)
        if self.graph is None or not self.graph.can_replay(x):
            return self.network(x)
        return self.graph(x)

    def _record(self, x: Tensor) -> None:
        network = self.network
        bare = network._orig_mod if isinstance(network, OptimizedModule) else network

        def call(x: Tensor) -> Outputs:
            return network(x)

        try:
            self.graph = TrainingGraph(bare, call, (x,))
        except RuntimeError as error:
            self.reason = f"they could not be recorded: {error}"
            torch.cuda.empty_cache()
