// Adds up the backward pass's partial results: parameters over batch and chunks, B and C over the channel blocks.
#pragma once
#include "reductions.cuh"

constexpr int FINISH_THREADS = 256;
constexpr int SLICES = FINISH_THREADS / 32;

// Sums 32 consecutive outputs of (dA, dbias, dD) over batch and chunks: 8 slices of the sum side by side, then theirs.
__device__ __forceinline__ void finish_parameters(const ScanArgs& p) {
    __shared__ float slices[SLICES][32];
    const long long padded = (long long)p.channel_blocks * BLOCK_CHANNELS, n_bias = p.K * padded, n_A = n_bias * STATES;
    const int lane = threadIdx.x & 31, slice = threadIdx.x >> 5;
    long long index = (long long)blockIdx.x * 32 + lane;
    const float* parts;
    long long step;  // n_A and n_bias are multiples of 32, so a warp never straddles two arrays
    int kind = 0;
    if (index < n_A) parts = p.A_parts, step = n_A;
    else if ((index -= n_A) < n_bias) parts = p.bias_parts, step = n_bias, kind = 1;
    else index -= n_bias, parts = p.D_parts, step = padded, kind = 2;
    float sum = 0.f;
    if (index < step) {
#pragma unroll 4
        for (int i = slice; i < p.batch * p.chunks; i += SLICES) sum += parts[i * step + index];
    }
    slices[slice][lane] = sum;
    __syncthreads();
    if (slice > 0 || index >= step) return;
    sum = 0.f;
#pragma unroll
    for (int i = 0; i < SLICES; i++) sum += slices[i][lane];
    if (kind == 0) {  // undo the lane order of state_offset()
        const int n = index % LANE_STATES, c = index / LANE_STATES % LANE_CHANNELS, owner = index / LANE_VALUES % 32;
        const long long unit = index / LANE_VALUES / 32, k = unit / (p.channel_blocks * WARPS);
        const int e = unit % (p.channel_blocks * WARPS) * WARP_CHANNELS + group_of(owner) * LANE_CHANNELS + c;
        const int state = part_of(owner) * LANE_STATES + n;
        if (e < p.E && state < p.N) p.dA[(k * p.E + e) * p.N + state] = sum;
    } else if (kind == 1) {
        const long long k = index / padded, e = index % padded;
        if (e < p.E && p.dbias) p.dbias[k * p.E + e] = sum;
    } else if (index < p.E) {
        for (int k = 0; k < p.K; k++) p.dD[k * p.E + index] = sum;
    }
}

// dB and dC of four states: sum over the channel blocks.
__device__ __forceinline__ void finish_states(const ScanArgs& p, long long index) {
    const long long rows = (long long)p.batch * p.L * p.K, row = index / (STATES / 2);
    const int column = index % (STATES / 2) * 4, matrix = column / STATES, state = column % STATES;
    if (row >= rows || state >= p.N) return;
    const float* parts = p.state_parts + row * 2 * STATES + column;
    float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 4
    for (int e = 0; e < p.channel_blocks; e++) {
        const float4 v = *reinterpret_cast<const float4*>(parts + e * rows * 2 * STATES);
        sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
    }
    Element* const out = static_cast<Element*>(matrix ? p.dC : p.dB) + row * p.state_row + state;
    union { Pair pairs[2]; Element values[4]; } u;
    u.pairs[0] = from_floats(sum.x, sum.y), u.pairs[1] = from_floats(sum.z, sum.w);
    if (p.N % 4 == 0 && reinterpret_cast<unsigned long long>(out) % sizeof(Pair) == 0) {
        reinterpret_cast<Pair*>(out)[0] = u.pairs[0], reinterpret_cast<Pair*>(out)[1] = u.pairs[1];
    } else {
        for (int i = 0; i < 4; i++)
            if (state + i < p.N) out[i] = u.values[i];
    }
}
