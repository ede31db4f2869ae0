"""Exponential moving average of a network's weights, with which it validates and predicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

TRAINED = "trained_weights"  # entry of the optimiser's state


class WeightAverage:
    """The average of a network's weights over training steps, which can change places with the trained ones.

    network: the one that is trained. decay: what a step leaves of the average, such as 0.999; ValueError unless it lies
    between 0 and 1. optimizer: the network's. Checkpoints are written with the average in the network, so that every
    nnU-Net command predicts with it; the trained weights, with which `--c` continues, are part of the optimiser's state
    there.
    """

    def __init__(self, network: nn.Module, decay: float, optimizer: Optimizer) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"ema_decay is {decay}, it must lie between 0 and 1: give 0.999, or None for no average")
        self.network = network
        self.other = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.is_in_network = False
        self.loaded: Mapping[str, Tensor] | None = None
        optimizer.register_state_dict_post_hook(self._with_trained)
        optimizer.register_load_state_dict_pre_hook(self._without_trained)

    @torch.no_grad()
    def begin(self) -> None:
        """Starts or continues averaging, before the first step: the average is what the network holds now.

        If the optimiser's state brought trained weights, the network goes on with these.
        """
        for average, own in zip(self.other.module.parameters(), self.network.parameters(), strict=True):
            average.copy_(own)
        self.other.n_averaged.fill_(1)
        self.is_in_network = False
        if self.loaded is not None:
            for name, own in self.network.named_parameters():
                own.copy_(self.loaded[name])
            self.loaded = None

    def update(self) -> None:
        """Takes the weights behind a training step into the average."""
        self.other.update_parameters(self.network)

    @torch.no_grad()
    def exchange(self) -> None:
        """Puts the average into the network, or the trained weights back; in place, so that CUDA graphs stay valid."""
        for other, own in zip(self.other.module.parameters(), self.network.parameters(), strict=True):
            kept = own.clone()
            own.copy_(other)
            other.copy_(kept)
        self.is_in_network = not self.is_in_network

    @contextmanager
    def in_network(self) -> Iterator[None]:
        """Context in which the network holds the average."""
        if self.is_in_network:
            yield
            return
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    def _with_trained(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        trained = self.other.module if self.is_in_network else self.network
        return {**state, TRAINED: {name: weight.detach() for name, weight in trained.named_parameters()}}

    def _without_trained(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        self.loaded = state.get(TRAINED)
        return {key: value for key, value in state.items() if key != TRAINED}
