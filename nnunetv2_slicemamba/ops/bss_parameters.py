"""Parameters of a whole BSS block, as backends with kernels for whole blocks take them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class BssParameters(NamedTuple):
    """Parameters of a BSS, float32, with its shapes: C channels, E inner channels, K directions, N states, rank R."""

    in_proj: Tensor  # (2E, C)
    conv_weight: Tensor  # (E, 1, 3, ..)
    conv_bias: Tensor  # (E,)
    x_proj: Tensor  # (K, R + 2N, E)
    dt_weight: Tensor  # (K, E, R)
    dt_bias: Tensor  # (K, E)
    A_logs: Tensor  # (K E, N)
    D: Tensor  # (K E,)
    gamma: Tensor  # (E,)
    beta: Tensor  # (E,)
    out_proj: Tensor  # (C, E)

    @property
    def products(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The weights of the matrix products, which need them in the compute type."""
        return self.in_proj, self.x_proj, self.dt_weight, self.out_proj
