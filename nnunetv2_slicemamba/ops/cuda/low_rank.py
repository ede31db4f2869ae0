"""Step sizes of low rank: their expansion and the reduction of its gradients, matrix products around the kernels."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

FLOAT16_MAX = 65504.0
# Long sums over tokens in one product per direction leave most of the GPU idle; in pieces they fill it.
PIECE_TOKENS = 1024
FEWEST_TOKENS = 8192  # from which pieces pay


def expand_dt(dt: Tensor, dt_weight: Tensor) -> Tensor:
    """Step sizes (batch, L, K, E) from dt (batch, L, K, R) and dt_weight (K, E, R), in dt's type."""
    batch, length, K, rank = dt.shape
    channels = dt_weight.shape[1]
    full = dt.new_empty(batch, length, K, channels)
    # written in place, one matrix per direction; `out` also keeps autocast away, here and below
    torch.bmm(
        dt.reshape(batch * length, K, rank).transpose(0, 1),
        dt_weight.to(dt.dtype).transpose(1, 2),
        out=full.view(batch * length, K, channels).transpose(0, 1),
    )
    return full


def reduce_dt(ddt: Tensor, dt: Tensor, dt_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of dt (batch, L, K, R) and of dt_weight (K, E, R) from that of their product (batch, L, K, E)."""
    d_dt = dt.new_empty(dt.shape)
    reduce_dt_into(d_dt, ddt, dt_weight)
    product, all_pairs = weight_products(ddt, dt)
    _saturate(product)
    if not all_pairs:
        return d_dt, product[0].to(dt_weight.dtype)
    K, channels, rank = dt_weight.shape
    own = product.view(-1, K, channels, K, rank).diagonal(dim1=1, dim2=3)  # (pieces, E, R, K)
    return d_dt, own.sum(0, dtype=torch.float32).permute(2, 0, 1).to(dt_weight.dtype)


def reduce_dt_into(d_dt: Tensor, ddt: Tensor, dt_weight: Tensor) -> None:
    """Writes the gradient of dt from that of the expanded one, ddt (batch, L, K, E) contiguous, to d_dt.

    d_dt: (batch, L, K, R), contiguous or a slice of a contiguous tensor's last axis.
    """
    batch, length, K, channels = ddt.shape
    rows = d_dt.view(batch * length, K, -1)
    torch.bmm(ddt.view(batch * length, K, channels).transpose(0, 1), dt_weight.to(ddt.dtype), out=rows.transpose(0, 1))
    _saturate(d_dt)


def weight_products(ddt: Tensor, dt: Tensor) -> tuple[Tensor, bool]:
    """Products whose sum over the pieces is dt_weight's gradient; ddt (batch, L, K, E) contiguous, dt (batch, L, K, R).

    Returns (pieces, K, E, R) and False, or (pieces, K E, K R) and True: products of all pairs of directions, of which
    only those of a direction with itself count. They are in ddt's type and not saturated.
    """
    batch, length, K, channels = ddt.shape
    tokens, rank = batch * length, dt.shape[3]
    ddt, dt = ddt.view(tokens, K, channels), dt.reshape(tokens, K, rank)
    if tokens < FEWEST_TOKENS:
        product = ddt.new_empty(K, channels, rank)
        torch.bmm(ddt.permute(1, 2, 0), dt.transpose(0, 1), out=product)
        return product[None], False
    # All pairs of directions, because the tokens of one direction alone cannot be cut into equal strides; the products
    # of different directions are dropped. Each is small beside reading ddt once.
    pieces = _pieces(tokens)
    product = ddt.new_empty(pieces, K * channels, K * rank)
    torch.bmm(
        ddt.view(pieces, -1, K * channels).transpose(1, 2),
        dt.contiguous().view(pieces, -1, K * rank),
        out=product,
    )
    return product, True


@lru_cache(maxsize=256)
def _pieces(tokens: int) -> int:
    """Divisor of `tokens` that makes pieces of PIECE_TOKENS or the next larger possible size."""
    return next(count for count in range(max(1, tokens // PIECE_TOKENS), 0, -1) if tokens % count == 0)


def _saturate(product: Tensor) -> Tensor:
    """Clamps what float16 cannot hold to +-65504, in place, as the kernels do; NaN stays. Returns `product`."""
    return product.clamp_(-FLOAT16_MAX, FLOAT16_MAX) if product.dtype == torch.float16 else product
