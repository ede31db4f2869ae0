"""Parameter groups of the optimiser: decay for matrices and kernels only, and learning rates of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

WITHOUT_DECAY = ("A_logs", "Ds", "dt_projs_bias")
RATE_FACTOR = "rate_factor"  # entry of a group: its learning rate as a multiple of the schedule's


def parameter_groups(
    network: nn.Module,
    weight_decay: float,
    rate_factors: Mapping[str, float] | None = None,
    decays_all: bool = False,
    rate_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """Groups for the optimiser, with decay and without, and one pair for every rate; none is empty but the first two.

    rate_factors: end of a parameter's name -> its learning rate as a multiple of the schedule's; rate_factor: of
    all others. decays_all: decay for all parameters, as in nnU-Net. Parameters without gradient are left out. A_logs
    and Ds have no decay, as in Mamba (Gu & Dao 2023); everything one-dimensional is a bias or a norm.
    """
    factors = dict(rate_factors or {})
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {(rate_factor, True): [], (rate_factor, False): []}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            factor = next((value for end, value in factors.items() if name.endswith(end)), rate_factor)
            decays = decays_all or (parameter.ndim > 1 and not name.endswith(WITHOUT_DECAY))
            groups.setdefault((factor, decays), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decays else 0.0, RATE_FACTOR: factor}
        for (factor, decays), parameters in groups.items()
    ]


def only(groups: list[dict[str, Any]], wanted: Callable[[nn.Parameter], bool]) -> list[dict[str, Any]]:
    """The groups with the wanted parameters alone, without those that have none."""
    kept = [{**group, "params": [p for p in group["params"] if wanted(p)]} for group in groups]
    return [group for group in kept if group["params"]]
