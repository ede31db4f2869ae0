"""The numba backend's kernels: the scan of one image, some directions and some channels on one CPU core.

Channels are taken in blocks of WIDTH numbers that are computed together; within a block B and C are scalars. A block's
state is N vectors. Tokens are taken in chunks of CHUNK: the forward keeps the state before each chunk, the backward
recomputes the others. Everything is float32. Recurrence: S6, Gu & Dao 2023.

Arrays are flat; their shapes: x, gy, out, gx (batch, L, E); dt, gdt (batch, L, K, E); bias (K, E); B, C, gB, gC
(batch, L, K, N); A2 = A log2(e) (K, N, E); gA (batch, K, N, E); kept (batch, chunks, K, blocks, N, WIDTH), with the
blocks' last one filled up with zeros. Only orders is (K, L).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from nnunetv2_slicemamba.ops.numba_vector import (
    WIDTH,
    exp2,
    load,
    load_some,
    pointer,
    softplus,
    splat,
    store,
    store_some,
    total,
)

CHUNK = 64

_njit: Any = numba.njit
_ZERO = np.float32(0.0)
_LN_2 = np.float32(0.6931471805599453)


def _compiled(function: Callable[..., Any]) -> Any:
    """The function as a kernel without the interpreter's lock, kept on disk where there is a place for it."""
    try:
        return _njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package's folder nor the user's cache folder is writable
        return _njit(nogil=True, error_model="numpy")(function)


_inlined = _njit(forceinline=True, error_model="numpy")


@_inlined
def _vectors(count):
    return np.zeros(count * WIDTH, np.float32)


@_inlined
def _read(source, row, E, block):
    """A block's channels in a row of E numbers, then zeros."""
    start, width = row * E + block * WIDTH, E - block * WIDTH
    if width >= WIDTH:
        return load(source, start)
    return load_some(source, start, width)


@_inlined
def _write(target, row, E, block, value, add):
    """Writes a block's channels in a row of E numbers, or adds to what is there."""
    start, width = row * E + block * WIDTH, E - block * WIDTH
    if add:
        value = value + _read(target, row, E, block)
    if width >= WIDTH:
        store(target, start, value)
    else:
        store_some(target, start, width, value)


@_inlined
def _load_A2(p_A2, k, E, N, blocks, a2):
    """Some blocks of A2 for direction k, N vectors a block."""
    for block in range(blocks[0], blocks[1]):
        for n in range(N):
            store(a2, ((block - blocks[0]) * N + n) * WIDTH, _read(p_A2, k * N + n, E, block))


@_inlined
def _advance(p_B, p_C, rows, K, k, N, j, a2, dx_c, delta_c, h, y_c):
    """Block j's recurrence over a chunk: h is the state before it, then after it."""
    for t in range(len(rows)):
        place, parameters = (j * CHUNK + t) * WIDTH, (rows[t] * K + k) * N
        delta, dx = load(delta_c, place), load(dx_c, place)
        y = splat(_ZERO)
        for n in range(N):
            own = (j * N + n) * WIDTH
            state = exp2(delta * load(a2, own)) * load(h, own) + splat(p_B[parameters + n]) * dx
            store(h, own, state)
            y = y + splat(p_C[parameters + n]) * state
        store(y_c, place, y)


@_compiled
def forward(x, dt, bias, B, C, A2, orders, out, kept, E, N, b, directions, blocks):
    """Writes out for image b: the sum over directions[0]..directions[1] - 1, channel blocks blocks[0]..blocks[1] - 1.

    kept is filled, too, unless it is empty.
    """
    K, L = orders.shape
    chunks, all_blocks, count = (L + CHUNK - 1) // CHUNK, (E + WIDTH - 1) // WIDTH, blocks[1] - blocks[0]
    p_x, p_dt, p_bias, p_B, p_C, p_out = pointer(x), pointer(dt), pointer(bias), pointer(B), pointer(C), pointer(out)
    a2, h = _vectors(count * N), _vectors(count * N)
    dx_c, delta_c, y_c = _vectors(count * CHUNK), _vectors(count * CHUNK), _vectors(count * CHUNK)
    for k in range(directions[0], directions[1]):
        h[:] = _ZERO
        _load_A2(pointer(A2), k, E, N, blocks, a2)
        for c in range(chunks):
            rows = b * L + orders[k, c * CHUNK : (c + 1) * CHUNK]
            if kept.size > 0:
                start = (((b * chunks + c) * K + k) * all_blocks + blocks[0]) * N * WIDTH
                kept[start : start + count * N * WIDTH] = h
            for t in range(len(rows)):  # all of a token's channels at once, for the sake of the caches
                for j in range(count):
                    block, place = blocks[0] + j, (j * CHUNK + t) * WIDTH
                    delta, _ = softplus(_read(p_dt, rows[t] * K + k, E, block) + _read(p_bias, k, E, block))
                    store(delta_c, place, delta)
                    store(dx_c, place, delta * _read(p_x, rows[t], E, block))
            for j in range(count):
                _advance(p_B, p_C, rows, K, k, N, j, a2, dx_c, delta_c, h, y_c)
            for t in range(len(rows)):
                for j in range(count):
                    y = load(y_c, (j * CHUNK + t) * WIDTH)
                    _write(p_out, rows[t], E, blocks[0] + j, y, k > directions[0])


@_inlined
def _recompute(p_B, rows, K, k, N, j, a2, x_c, delta_c, decay_c, h_c):
    """Block j's decay factors and states of a chunk, from the state before it in the first N vectors of h_c."""
    for t in range(len(rows)):
        place, parameters = (j * CHUNK + t) * WIDTH, (rows[t] * K + k) * N
        delta = load(delta_c, place)
        dx = delta * load(x_c, place)
        for n in range(N):
            now = (t * N + n) * WIDTH
            decay = exp2(delta * load(a2, (j * N + n) * WIDTH))
            store(decay_c, now, decay)
            store(h_c, now + N * WIDTH, decay * load(h_c, now) + splat(p_B[parameters + n]) * dx)


@_inlined
def _reverse(p_B, p_C, p_gB, p_gC, rows, K, k, N, j, a2, x_c, delta_c, derivative_c, gy_c, decay_c, h_c, later, gA_k):
    """Block j's gradients of x and dt, from a chunk's last token to its first, replace x_c and delta_c.

    later: the gradient of the state after the token at hand that later tokens cause; it goes on to the chunk before.
    gB and gC are written for the first block, j = 0, and added to for the others.
    """
    for t in range(len(rows) - 1, -1, -1):
        place, parameters = (j * CHUNK + t) * WIDTH, (rows[t] * K + k) * N
        delta, x, gy = load(delta_c, place), load(x_c, place), load(gy_c, place)
        dx = delta * x
        gdx, gdelta = splat(_ZERO), splat(_ZERO)
        for n in range(N):
            now, own = (t * N + n) * WIDTH, (j * N + n) * WIDTH
            gh = load(later, own) + splat(p_C[parameters + n]) * gy
            gdx = gdx + splat(p_B[parameters + n]) * gh
            gB, gC = total(gh * dx), total(gy * load(h_c, now + N * WIDTH))
            p_gB[parameters + n] = gB if j == 0 else p_gB[parameters + n] + gB
            p_gC[parameters + n] = gC if j == 0 else p_gC[parameters + n] + gC
            gh = load(decay_c, now) * gh
            store(later, own, gh)
            gh = gh * load(h_c, now)  # of the exponent, delta * A
            gdelta = gdelta + gh * load(a2, own)
            store(gA_k, own, load(gA_k, own) + gh * delta)
        store(x_c, place, gdx * delta)
        store(delta_c, place, (gdelta * splat(_LN_2) + gdx * x) * load(derivative_c, place))


@_compiled
def backward(gy, x, dt, bias, B, C, A2, orders, kept, gx, gdt, gB, gC, gA, E, N, b, directions, blocks):
    """Writes the gradients for image b, some directions and channel blocks, as `forward` does.

    gx is the sum over the directions, gB and gC over the channel blocks at hand; gdt is before bias and softplus; gA
    is of A, not of A2, for this image alone.
    """
    K, L = orders.shape
    chunks, all_blocks, count = (L + CHUNK - 1) // CHUNK, (E + WIDTH - 1) // WIDTH, blocks[1] - blocks[0]
    p_gy, p_x, p_dt, p_bias, p_B, p_C = pointer(gy), pointer(x), pointer(dt), pointer(bias), pointer(B), pointer(C)
    p_gx, p_gdt, p_gB, p_gC, p_gA = pointer(gx), pointer(gdt), pointer(gB), pointer(gC), pointer(gA)
    a2, later, gA_k = _vectors(count * N), _vectors(count * N), _vectors(count * N)
    decay_c, h_c = _vectors(CHUNK * N), _vectors((CHUNK + 1) * N)  # h_c: before the chunk, then after each token
    x_c, gy_c = _vectors(count * CHUNK), _vectors(count * CHUNK)
    delta_c, derivative_c = _vectors(count * CHUNK), _vectors(count * CHUNK)
    for k in range(directions[0], directions[1]):
        later[:] = _ZERO
        gA_k[:] = _ZERO
        _load_A2(pointer(A2), k, E, N, blocks, a2)
        for c in range(chunks - 1, -1, -1):
            rows = b * L + orders[k, c * CHUNK : (c + 1) * CHUNK]
            for t in range(len(rows)):
                for j in range(count):
                    block, place = blocks[0] + j, (j * CHUNK + t) * WIDTH
                    delta, derivative = softplus(_read(p_dt, rows[t] * K + k, E, block) + _read(p_bias, k, E, block))
                    store(delta_c, place, delta)
                    store(derivative_c, place, derivative)
                    store(x_c, place, _read(p_x, rows[t], E, block))
                    store(gy_c, place, _read(p_gy, rows[t], E, block))
            for j in range(count):
                start = (((b * chunks + c) * K + k) * all_blocks + blocks[0] + j) * N * WIDTH
                h_c[: N * WIDTH] = kept[start : start + N * WIDTH]
                _recompute(p_B, rows, K, k, N, j, a2, x_c, delta_c, decay_c, h_c)
                _reverse(
                    p_B,
                    p_C,
                    p_gB,
                    p_gC,
                    rows,
                    K,
                    k,
                    N,
                    j,
                    a2,
                    x_c,
                    delta_c,
                    derivative_c,
                    gy_c,
                    decay_c,
                    h_c,
                    later,
                    gA_k,
                )
            for t in range(len(rows)):
                for j in range(count):
                    block, place = blocks[0] + j, (j * CHUNK + t) * WIDTH
                    _write(p_gx, rows[t], E, block, load(x_c, place), k > directions[0])
                    _write(p_gdt, rows[t] * K + k, E, block, load(delta_c, place), False)
        for j in range(count):
            for n in range(N):
                _write(p_gA, (b * K + k) * N + n, E, blocks[0] + j, load(gA_k, (j * N + n) * WIDTH), False)
