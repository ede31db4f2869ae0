"""Parameter groups of the optimiser: matrices and kernels decay; scan parameters, biases and norms do not."""

from __future__ import annotations

from typing import Any

from torch import nn

WITHOUT_DECAY = ("A_logs", "Ds", "dt_projs_bias")


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for the optimiser, with and without decay; parameters without gradient are left out.

    A_logs and Ds are excluded as in Mamba (Gu & Dao 2023); everything one-dimensional is a bias or a norm.
    """
    decay: list[nn.Parameter] = []
    no_decay: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            excluded = parameter.ndim <= 1 or name.endswith(WITHOUT_DECAY)
            (no_decay if excluded else decay).append(parameter)
    return [{"params": decay, "weight_decay": weight_decay}, {"params": no_decay, "weight_decay": 0.0}]
