"""The state of a training as its last epoch ended, from which a checkpoint can be written in the middle of the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch._dynamo import OptimizedModule


class FinishedEpoch:
    """A copy, in main memory, of all that nnU-Net writes into a checkpoint and that the next epoch changes.

    It takes as many bytes as a checkpoint. Copying is quicker than writing a checkpoint after every epoch.
    """

    def __init__(self) -> None:
        self.content: dict[str, Any] = {}

    def keep(self, trainer: Any) -> None:
        """Copies the state of a trainer whose `current_epoch` has just ended; takes the place of an earlier copy."""
        scaler = trainer.grad_scaler
        self.content = {
            "network": copied(bare(trainer.network, trainer.is_ddp).state_dict(), self.content.get("network")),
            "optimizer": copied(trainer.optimizer.state_dict(), self.content.get("optimizer")),
            "grad_scaler": None if scaler is None else deepcopy(scaler.state_dict()),
            "logger": deepcopy(trainer.logger.get_checkpoint()),
            "_best_ema": trainer._best_ema,
            "current_epoch": trainer.current_epoch,
        }

    @contextmanager
    def in_place_of_the_present(self, trainer: Any) -> Iterator[None]:
        """Context in which the trainer's `save_checkpoint` writes this state; no memory of the device is needed."""
        present = {name: getattr(trainer, name) for name in self.content}
        for name, value in self.content.items():
            setattr(trainer, name, _Kept(value) if isinstance(value, dict) else value)
        try:
            yield
        finally:
            for name, value in present.items():
                setattr(trainer, name, value)


class _Kept:
    """Stands for a network, an optimiser, a gradient scaler or a log: it only gives the state that was kept of it."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    @property
    def module(self) -> _Kept:
        """Of a network in DDP."""
        return self

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def get_checkpoint(self) -> dict[str, Any]:
        return self.state


def bare(network: Any, is_ddp: bool) -> nn.Module:
    """A trainer's network without the wrappers of DDP and torch.compile."""
    inner = network.module if is_ddp else network
    return inner._orig_mod if isinstance(inner, OptimizedModule) else inner


def copied(state: Any, earlier: Any = None) -> Any:
    """A deep copy with its tensors in main memory; those of an earlier copy are written over where they fit."""
    if isinstance(state, torch.Tensor):
        fits = isinstance(earlier, torch.Tensor) and (earlier.shape, earlier.dtype) == (state.shape, state.dtype)
        target = earlier if fits else torch.empty_like(state, device="cpu")
        return target.copy_(state.detach())
    if isinstance(state, dict):
        before = earlier if isinstance(earlier, dict) else {}
        return type(state)((key, copied(value, before.get(key))) for key, value in state.items())
    if isinstance(state, list | tuple):
        fits = isinstance(earlier, list | tuple) and len(earlier) == len(state)
        return type(state)(copied(*pair) for pair in zip(state, earlier if fits else [None] * len(state), strict=True))
    return deepcopy(state)
