"""The scan operation of the network: argument checks, then the chosen backend."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nnunetv2_slicemamba.ops.backends import BACKENDS, chosen_backend
from nnunetv2_slicemamba.ops.inputs import check_inputs, no_autocast
from nnunetv2_slicemamba.ops.loop_scan import is_exporting, loop_scan
from nnunetv2_slicemamba.ops.orders import check_axes


def slice_scan(
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    A: Tensor,
    D: Tensor,
    sizes: Sequence[int],
    thickness: Sequence[int],
    delta_bias: Tensor | None = None,
    dt_weight: Tensor | None = None,
    backend: str | None = None,
    axis: int | None = None,
) -> Tensor:
    """Selective scan of an image along its K = 2n slicing directions, summed over the directions.

    For direction k, tokens in the order `scan_orders(sizes, thickness)[k]`:
    delta_t = softplus(dt_t + delta_bias), h_t = exp(delta_t A) h_(t-1) + delta_t B_t x_t, y_t = C_t h_t + D x_t.

    x: (batch, L, E) tokens in raster order, L = prod(sizes).
    dt: (batch, L, K, E) before bias and softplus; or, with dt_weight, low-rank (batch, L, K, R).
    dt_weight: (K, E, R) or None; direction k's step sizes are then dt_weight[k] @ dt.
    B, C: (batch, L, K, N). A: (K, E, N), negative. D: (K, E). delta_bias: (K, E), or None for zero.
    sizes, thickness: tokens and band thickness, one entry per spatial axis.
    axis: read bands along this spatial axis alone, from 0; K is then 2, and its own thickness is unused. None for all.
    backend: a name of `available_backends()` or "auto"; None leaves it to the environment variable SLICEMAMBA_BACKEND.

    Returns (batch, L, E) in raster order, in x's type. The recurrence is computed in float32 whatever the autocast
    type, in float64 if x is float64. NaN or infinite values in a tensor are not looked for; they spread to all tokens
    that are read after them. Differentiable once with respect to every tensor. Tensors may be non-contiguous.
    Raises ValueError for shapes, types or devices that do not fit and for an unknown backend, RuntimeError for a named
    backend that cannot run here. After Fan et al. 2025 (slicing) and Gu & Dao 2023 (S6).
    """
    sizes, thickness = check_axes(sizes, thickness)
    check_inputs(x, dt, B, C, A, D, sizes, delta_bias, dt_weight, axis)
    if axis is not None:
        if axis not in range(len(sizes)):
            raise ValueError(f"axis is {axis}, it must be from 0 to {len(sizes) - 1}, or None for all axes")
        thickness = tuple(0 if i == axis else part for i, part in enumerate(thickness))
    if delta_bias is None:
        delta_bias = D.new_zeros(D.shape)
    if is_exporting():
        # a format knows no kernel of ours, and an autocast context cannot be saved
        return loop_scan(x, dt, B, C, A, D, sizes, thickness, delta_bias, dt_weight).to(x.dtype)
    scan = BACKENDS[chosen_backend(x.device, x.dtype, backend)].scan
    with no_autocast(x.device):
        return scan(x, dt, B, C, A, D, sizes, thickness, delta_bias, dt_weight).to(x.dtype)
