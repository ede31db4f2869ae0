"""What does a CPU core compute? The scan of one image, some directions and some channels, compiled by numba.

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

from nnunetv2_slicemamba.ops.numba_vector import WIDTH, exp2, load, softplus, splat, store, total

CHUNK = 32

_ZERO = np.float32(0.0)
_LN_2 = np.float32(0.6931471805599453)


def _compiled(function: Callable[..., Any]) -> Any:
    """The function as a kernel without the interpreter's lock, kept on disk where there is a place for it."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache folder is writable
        return numba.njit(**options)(function)


@_compiled
def _vectors(count):  # type: ignore[no-untyped-def]
    return np.zeros(count * WIDTH, np.float32)


@_compiled
def _read(array, start, width, spare):  # type: ignore[no-untyped-def]
    """The vector of `width` numbers at start, then zeros; spare: a vector of zeros to build it in."""
    if width == WIDTH:
        return load(array, start)
    for e in range(width):
        spare[e] = array[start + e]
    return load(spare, 0)


@_compiled
def _write(array, start, width, value, add):  # type: ignore[no-untyped-def]
    """Writes the first `width` numbers of a vector, or adds them to what is there."""
    if width == WIDTH:
        store(array, start, value + load(array, start) if add else value)
    else:
        numbers = _vectors(1)
        store(numbers, 0, value)
        for e in range(width):
            array[start + e] = numbers[e] + array[start + e] if add else numbers[e]


@_compiled
def forward(x, dt, bias, B, C, A2, orders, out, kept, E, N, b, directions, blocks):  # type: ignore[no-untyped-def]
    """Writes out for image b: the sum over directions[0]..directions[1] - 1, channel blocks blocks[0]..blocks[1] - 1.

    kept is filled, too, unless it is empty.
    """
    K, L = orders.shape
    chunks, all_blocks = (L + CHUNK - 1) // CHUNK, (E + WIDTH - 1) // WIDTH
    a2, h = _vectors(N), _vectors(N)
    dx_c, delta_c, y_c = _vectors(CHUNK), _vectors(CHUNK), _vectors(CHUNK)
    for block in range(blocks[0], blocks[1]):
        first = block * WIDTH
        width = min(WIDTH, E - first)
        spare = _vectors(1)
        for k in range(directions[0], directions[1]):
            h[:] = _ZERO
            bias_k = _read(bias, k * E + first, width, spare)
            for n in range(N):
                store(a2, n * WIDTH, _read(A2, (k * N + n) * E + first, width, spare))
            for c in range(chunks):
                index = orders[k, c * CHUNK : (c + 1) * CHUNK]
                if kept.size > 0:
                    start = (((b * chunks + c) * K + k) * all_blocks + block) * N * WIDTH
                    kept[start : start + N * WIDTH] = h
                for t in range(len(index)):
                    row = b * L + index[t]
                    delta, _ = softplus(_read(dt, (row * K + k) * E + first, width, spare) + bias_k)
                    store(delta_c, t * WIDTH, delta)
                    store(dx_c, t * WIDTH, delta * _read(x, row * E + first, width, spare))
                for t in range(len(index)):
                    parameters = ((b * L + index[t]) * K + k) * N
                    delta, dx = load(delta_c, t * WIDTH), load(dx_c, t * WIDTH)
                    y = splat(_ZERO)
                    for n in range(N):
                        decay = exp2(delta * load(a2, n * WIDTH))
                        state = decay * load(h, n * WIDTH) + splat(B[parameters + n]) * dx
                        store(h, n * WIDTH, state)
                        y = y + splat(C[parameters + n]) * state
                    store(y_c, t * WIDTH, y)
                for t in range(len(index)):
                    target = (b * L + index[t]) * E + first
                    _write(out, target, width, load(y_c, t * WIDTH), k > directions[0])


@_compiled
def backward(  # type: ignore[no-untyped-def]
    gy, x, dt, bias, B, C, A2, orders, kept, gx, gdt, gB, gC, gA, E, N, b, directions, blocks
):
    """Writes the gradients for image b, some directions and channel blocks, as `forward` does.

    gx is the sum over the directions, gB and gC over the channel blocks at hand; gdt is before bias and softplus; gA
    is of A, not of A2, for this image alone.
    """
    K, L = orders.shape
    chunks, all_blocks = (L + CHUNK - 1) // CHUNK, (E + WIDTH - 1) // WIDTH
    a2, gA_k = _vectors(N), _vectors(N)
    gh_later = _vectors(N)  # the gradient of the state after the token at hand that later tokens cause
    decay_c = _vectors(CHUNK * N)
    h_c = _vectors((CHUNK + 1) * N)  # the state before the chunk, then after each token
    x_c, gy_c, delta_c, slope_c = _vectors(CHUNK), _vectors(CHUNK), _vectors(CHUNK), _vectors(CHUNK)
    for block in range(blocks[0], blocks[1]):
        first = block * WIDTH
        width = min(WIDTH, E - first)
        spare = _vectors(1)
        for k in range(directions[0], directions[1]):
            gh_later[:] = _ZERO
            gA_k[:] = _ZERO
            bias_k = _read(bias, k * E + first, width, spare)
            for n in range(N):
                store(a2, n * WIDTH, _read(A2, (k * N + n) * E + first, width, spare))
            for c in range(chunks - 1, -1, -1):
                index = orders[k, c * CHUNK : (c + 1) * CHUNK]
                start = (((b * chunks + c) * K + k) * all_blocks + block) * N * WIDTH
                h_c[: N * WIDTH] = kept[start : start + N * WIDTH]
                for t in range(len(index)):
                    row = b * L + index[t]
                    delta, slope = softplus(_read(dt, (row * K + k) * E + first, width, spare) + bias_k)
                    store(delta_c, t * WIDTH, delta)
                    store(slope_c, t * WIDTH, slope)
                    store(x_c, t * WIDTH, _read(x, row * E + first, width, spare))
                    store(gy_c, t * WIDTH, _read(gy, row * E + first, width, spare))
                for t in range(len(index)):
                    parameters = ((b * L + index[t]) * K + k) * N
                    delta = load(delta_c, t * WIDTH)
                    dx = delta * load(x_c, t * WIDTH)
                    for n in range(N):
                        now = (t * N + n) * WIDTH
                        decay = exp2(delta * load(a2, n * WIDTH))
                        store(decay_c, now, decay)
                        store(h_c, now + N * WIDTH, decay * load(h_c, now) + splat(B[parameters + n]) * dx)
                for t in range(len(index) - 1, -1, -1):
                    parameters = ((b * L + index[t]) * K + k) * N
                    delta, x_t, gy_t = load(delta_c, t * WIDTH), load(x_c, t * WIDTH), load(gy_c, t * WIDTH)
                    dx = delta * x_t
                    gdx, gdelta = splat(_ZERO), splat(_ZERO)
                    for n in range(N):
                        now = (t * N + n) * WIDTH
                        gh = load(gh_later, n * WIDTH) + splat(C[parameters + n]) * gy_t
                        gdx = gdx + splat(B[parameters + n]) * gh
                        gB_n, gC_n = total(gh * dx), total(gy_t * load(h_c, now + N * WIDTH))
                        gB[parameters + n] = gB_n if block == blocks[0] else gB[parameters + n] + gB_n
                        gC[parameters + n] = gC_n if block == blocks[0] else gC[parameters + n] + gC_n
                        gh = load(decay_c, now) * gh
                        store(gh_later, n * WIDTH, gh)
                        gh = gh * load(h_c, now)  # of the exponent, delta * A
                        gdelta = gdelta + gh * load(a2, n * WIDTH)
                        store(gA_k, n * WIDTH, load(gA_k, n * WIDTH) + gh * delta)
                    store(x_c, t * WIDTH, gdx * delta)
                    store(delta_c, t * WIDTH, (gdelta * splat(_LN_2) + gdx * x_t) * load(slope_c, t * WIDTH))
                for t in range(len(index)):
                    row = b * L + index[t]
                    _write(gx, row * E + first, width, load(x_c, t * WIDTH), k > directions[0])
                    _write(gdt, (row * K + k) * E + first, width, load(delta_c, t * WIDTH), False)
            for n in range(N):
                _write(gA, ((b * K + k) * N + n) * E + first, width, load(gA_k, n * WIDTH), False)
