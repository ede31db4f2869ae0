"""Norms of an epoch's gradients, and the steps that the gradient scaler skipped."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.optim import Optimizer

CLIPPED_AT = 12  # nnU-Net's


class WatchfulScaler(torch.amp.GradScaler):
    """PyTorch's gradient scaler, which keeps the norm of the gradients of every step, before they are clipped.

    The norms stay on the device until `report` reads them all at once, so that no step waits for them.
    """

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self.norms: list[Tensor] = []

    def unscale_(self, optimizer: Optimizer) -> None:
        super().unscale_(optimizer)
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.norms.append(total_norm(gradients))

    def report(self) -> str | None:
        """A line on the steps since the last report if some were skipped or exploded, None if all is well."""
        norms = torch.stack(self.norms).tolist() if self.norms else []
        self.norms = []
        finite = [norm for norm in norms if math.isfinite(norm)]
        skipped, largest = len(norms) - len(finite), max(finite, default=0.0)
        parts = [f"{skipped} of {len(norms)} steps were skipped, since their gradients were not finite"] * bool(skipped)
        if largest > CLIPPED_AT:
            clipped = sum(norm > CLIPPED_AT for norm in finite)
            parts.append(f"{clipped} gradients were clipped to norm {CLIPPED_AT}, the largest had {largest:.1f}")
        return "; ".join(parts) or None


def total_norm(gradients: list[Tensor]) -> Tensor:
    """Norm of all gradients together."""
    if hasattr(torch.nn.utils, "get_total_norm"):
        return torch.nn.utils.get_total_norm(gradients)
    # PyTorch 2.5 and older: a kernel for every tensor
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
