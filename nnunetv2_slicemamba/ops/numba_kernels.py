"""What does a CPU core compute? The scan of one image, some directions and some channels, compiled by numba.

Channels are taken in blocks of WIDTH numbers that are computed together; in a block B and C are scalars. A block's
state is an array of N vectors. Everything is float32. Recurrence: S6, Gu & Dao 2023.
"""

from __future__ import annotations

import numba
import numpy as np

from nnunetv2_slicemamba.ops.numba_vector import WIDTH, exp2, load, softplus, splat, store, total

CHUNK = 32  # tokens between two saved states


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _load_chunk(x, dt, bias, orders, b, k, start, tokens, first, width, fx, fdelta, fslope):
    """Vectors of x, delta and d delta / d dt of the chunk's tokens; channels beyond the last are 0."""
    for t in range(tokens):
        i = orders[k, start + t]
        for e in range(width):
            fx[t * WIDTH + e] = x[b, i, first + e]
            fdelta[t * WIDTH + e] = dt[b, i, k, first + e] + bias[k, first + e]
    for t in range(tokens):
        delta, slope = softplus(load(fdelta, t))
        store(fdelta, t, delta)
        store(fslope, t, slope)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def forward(x, dt, bias, B, C, A2, orders, out, kept, b, k_from, k_to, block_from, block_to):
    """Scans image b, directions k_from..k_to, channel blocks block_from..block_to.

    x (batch, L, E), dt (batch, L, K, E), bias (K, E), B, C (batch, L, K, N), A2 = A log2(e) as (K, N, E), orders (K, L).
    out (batch, L, E): written. kept (batch, chunks, K, blocks, N * WIDTH): states before the chunks, or of size 0.
    """
    length, channels = x.shape[1], x.shape[2]
    states = A2.shape[1]
    a2 = np.zeros(states * WIDTH, np.float32)
    h = np.zeros(states * WIDTH, np.float32)
    fx = np.zeros(CHUNK * WIDTH, np.float32)
    fdelta = np.zeros(CHUNK * WIDTH, np.float32)
    fslope = np.zeros(CHUNK * WIDTH, np.float32)
    fy = np.zeros(WIDTH, np.float32)
    for block in range(block_from, block_to):
        first = block * WIDTH
        width = min(WIDTH, channels - first)
        for k in range(k_from, k_to):
            h[:] = np.float32(0.0)
            for n in range(states):
                for e in range(width):
                    a2[n * WIDTH + e] = A2[k, n, first + e]
            for start in range(0, length, CHUNK):
                tokens = min(CHUNK, length - start)
                if kept.size > 0:
                    kept[b, start // CHUNK, k, block] = h
                _load_chunk(x, dt, bias, orders, b, k, start, tokens, first, width, fx, fdelta, fslope)
                for t in range(tokens):
                    i = orders[k, start + t]
                    delta = load(fdelta, t)
                    dx = delta * load(fx, t)
                    y = splat(np.float32(0.0))
                    for n in range(states):
                        state = exp2(delta * load(a2, n)) * load(h, n) + splat(B[b, i, k, n]) * dx
                        store(h, n, state)
                        y = y + splat(C[b, i, k, n]) * state
                    store(fy, 0, y)
                    if k == k_from:
                        for e in range(width):
                            out[b, i, first + e] = fy[e]
                    else:
                        for e in range(width):
                            out[b, i, first + e] += fy[e]
