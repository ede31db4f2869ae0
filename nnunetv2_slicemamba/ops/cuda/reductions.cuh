// Sums that both passes need: carries from chunk to chunk, and of the directions' results.
#pragma once
#include "common.cuh"

// Turns chunk-local results into carries: chunk_state[s] becomes the state at the start of chunk s (reverse: the
// gradient that arrives at its end). One thread per (batch, direction, channel, state).
__device__ __forceinline__ void carry_chunks(const ScanArgs& p, bool reverse) {
    constexpr int AHEAD = 8;  // loads in flight; the recurrence itself is short
    const int padded = p.channel_blocks * BLOCK_CHANNELS, per_chunk = padded * STATES;
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const int element = i % per_chunk;
    const long long direction = i / per_chunk;  // batch * K + k
    if (direction >= (long long)p.batch * p.K) return;
    const int lane = element / LANE_VALUES % 32, warp = element / (32 * LANE_VALUES);
    const int c = element / LANE_STATES % LANE_CHANNELS, state = part_of(lane) * LANE_STATES + element % LANE_STATES;
    const int channel = warp * WARP_CHANNELS + group_of(lane) * LANE_CHANNELS + c;
    const bool exists = channel < p.E && state < p.N;
    const float a = exists ? p.A[(direction % p.K * p.E + channel) * p.N + state] * LOG2E : 0.f;
    float* states = p.chunk_state + direction * p.chunks * per_chunk + element;
    const float* deltas = p.chunk_delta + direction * p.chunks * padded + channel;
    const int last = p.chunks - 1;
    float h = 0.f;
    for (int s0 = 0; s0 < p.chunks; s0 += AHEAD) {
        float local[AHEAD], decay[AHEAD];
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            const int s = s0 + u, at = reverse ? last - s : s;
            const bool used = s < last;  // nothing follows the last chunk, and no pass wrote it
            local[u] = used ? states[(long long)at * per_chunk] : 0.f;
            decay[u] = used ? deltas[(long long)at * padded] : 0.f;
        }
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            const int s = s0 + u, at = reverse ? last - s : s;
            if (s < p.chunks) states[(long long)at * per_chunk] = h;
            h = fmaf(exp2_fast(a * decay[u]), h, local[u]);
        }
    }
}

constexpr int COMBINE_ROWS = 4;  // rows per thread, which share the thread's sum of D

// out[b, l, e] = sum over k of y[b, k, l, e], plus (sum over k of D[k, e]) * in[b, l, e], for one piece of 8 channels
// (one channel where rows are not aligned) of COMBINE_ROWS rows.
template <int DIRECTIONS> __device__ __forceinline__ void combine_rows(const ScanArgs& p, const void* in, long long index) {
    constexpr int WIDTH = WIDE_ROWS ? PIECE : 1;
    const int K = DIRECTIONS ? DIRECTIONS : p.K, per_row = p.E / WIDTH;
    const long long rows = (long long)p.batch * p.L, step = (rows + COMBINE_ROWS - 1) / COMBINE_ROWS;
    const int e = index % per_row * WIDTH;
    const long long first = index / per_row;
    if (first >= step) return;
    float D[PIECE] = {};
    for (int k = 0; k < K; k++) {
        float f[WIDTH];
        load_vector(f, p.D + (long long)k * p.E + e);
#pragma unroll
        for (int i = 0; i < WIDTH; i++) D[i] += f[i];
    }
    for (int r = 0; r < COMBINE_ROWS; r++) {
        const long long row = first + r * step;
        if (row >= rows) return;
        const long long b = row / p.L, l = row - b * p.L;
        const Element* y = static_cast<const Element*>(p.y) + (b * K * p.L + l) * p.E + e;
        const long long direction = (long long)p.L * p.E;
        float sum[PIECE], f[PIECE];
        Piece pieces[DIRECTIONS ? DIRECTIONS : 1];
        if constexpr (DIRECTIONS > 0) {
#pragma unroll
            for (int k = 0; k < DIRECTIONS; k++) pieces[k] = load_piece(y + k * direction, WIDTH);
        }
        unpack(load_piece(static_cast<const Element*>(in) + row * p.E + e, WIDTH), sum);
#pragma unroll
        for (int i = 0; i < PIECE; i++) sum[i] *= D[i];
        if constexpr (DIRECTIONS > 0) {
#pragma unroll
            for (int k = 0; k < DIRECTIONS; k++) {
                unpack(pieces[k], f);
#pragma unroll
                for (int i = 0; i < PIECE; i++) sum[i] += f[i];
            }
        } else {
            for (int k = 0; k < K; k++) {
                unpack(load_piece(y + k * direction, WIDTH), f);
#pragma unroll
                for (int i = 0; i < PIECE; i++) sum[i] += f[i];
            }
        }
        store_piece(static_cast<Element*>(p.out) + row * p.E + e, sum, WIDTH);
    }
}

__device__ __forceinline__ void combine(const ScanArgs& p, const void* in, long long index) {
    if (p.K == 4) combine_rows<4>(p, in, index);
    else if (p.K == 6) combine_rows<6>(p, in, index);
    else combine_rows<0>(p, in, index);
}
