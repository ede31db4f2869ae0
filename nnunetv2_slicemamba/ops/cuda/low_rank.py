"""How are step sizes of low rank expanded, and their gradients reduced? Matrix products around the kernels."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

FLOAT16_MAX = 65504.0
# Long sums over tokens in one product per direction leave most of the GPU idle; in pieces they fill it.
PIECE_TOKENS = 1024
FEWEST_TOKENS = 8192  # from which pieces pay


def expand_dt(dt: Tensor, dt_weight: Tensor) -> Tensor:
    """(batch, L, K, E) from dt (batch, L, K, R) and dt_weight (K, E, R), in dt's type."""
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
    batch, length, K, rank = dt.shape
    channels = dt_weight.shape[1]
    by_token = ddt.view(batch * length, K, channels)
    d_dt = dt.new_empty(batch, length, K, rank)
    torch.bmm(by_token.transpose(0, 1), dt_weight.to(dt.dtype), out=d_dt.view(-1, K, rank).transpose(0, 1))
    return _saturate(d_dt), _weight_gradient(by_token, dt.reshape(-1, K, rank)).to(dt_weight.dtype)


def _weight_gradient(ddt: Tensor, dt: Tensor) -> Tensor:
    """(K, E, R), the sum over the tokens of the outer products of ddt (tokens, K, E) and dt (tokens, K, R)."""
    tokens, K, channels = ddt.shape
    rank = dt.shape[2]
    if tokens < FEWEST_TOKENS:
        product = ddt.new_empty(K, channels, rank)
        torch.bmm(ddt.permute(1, 2, 0), dt.transpose(0, 1), out=product)
        return _saturate(product)
    # All pairs of directions, because the tokens of one direction alone cannot be cut into equal strides; the products
    # of different directions are dropped. Each is small beside reading ddt once.
    pieces = _pieces(tokens)
    product = ddt.new_empty(pieces, K * channels, K * rank)
    torch.bmm(
        ddt.view(pieces, -1, K * channels).transpose(1, 2),
        dt.contiguous().view(pieces, -1, K * rank),
        out=product,
    )
    own = _saturate(product).view(pieces, K, channels, K, rank).diagonal(dim1=1, dim2=3)  # (pieces, E, R, K)
    return own.sum(0, dtype=torch.float32).permute(2, 0, 1)


@lru_cache(maxsize=256)
def _pieces(tokens: int) -> int:
    """The divisor of `tokens` that makes pieces of PIECE_TOKENS or the next larger possible size."""
    return next(count for count in range(max(1, tokens // PIECE_TOKENS), 0, -1) if tokens % count == 0)


def _saturate(product: Tensor) -> Tensor:
    """`product` with what float16 cannot hold at +-65504 as in the kernels, in place; NaN stays."""
    return product.clamp_(-FLOAT16_MAX, FLOAT16_MAX) if product.dtype == torch.float16 else product
