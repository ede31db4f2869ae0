// Common to kernels that normalise rows. A token (a row of channels) belongs to `lanes` neighbouring threads, a power
// of two; each keeps some pieces of PIECE channels in registers, piece i of lane l starting at channel
// PIECE * (l + i * lanes).
#pragma once
#include "elements.cuh"
#include "lanes.cuh"

constexpr int THREADS = 256;
constexpr float EPSILON = 1e-5f;

// Sums both values over the token's lanes; every lane gets them. scratch: one per warp of the block.
__device__ __forceinline__ float2 sum_lanes(float2 v, int lanes, float2* scratch) {
    for (int mask = min(lanes, 32) / 2; mask > 0; mask /= 2) v.x += exchange(v.x, mask), v.y += exchange(v.y, mask);
    if (lanes <= 32) return v;
    const int warp = threadIdx.x / 32, warps = lanes / 32, first = warp / warps * warps;
    __syncthreads();  // the sums before have been read
    if (threadIdx.x % 32 == 0) scratch[warp] = v;
    __syncthreads();
    v = make_float2(0.f, 0.f);
    for (int w = first; w < first + warps; w++) v.x += scratch[w].x, v.y += scratch[w].y;
    return v;
}

// A piece of a float32 parameter; 0 for channels that do not exist.
__device__ __forceinline__ void load_floats(float (&f)[PIECE], const float* at, int valid) {
#if WIDE_ROWS
#pragma unroll
    for (int i = 0; i < PIECE; i += 4) {
        float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
        if (valid > 0) v = __ldg(reinterpret_cast<const float4*>(at + i));
        f[i] = v.x, f[i + 1] = v.y, f[i + 2] = v.z, f[i + 3] = v.w;
    }
#else
#pragma unroll
    for (int i = 0; i < PIECE; i++) f[i] = i < valid ? __ldg(at + i) : 0.f;
#endif
}

// Sums piece i of every thread over the block's tokens and writes one total per channel that exists to `to`.
// scratch: THREADS * PIECE floats.
__device__ __forceinline__ void write_part(
    const float (&f)[PIECE], float* to, int channels, int i, int lanes, float* scratch) {
    __syncthreads();  // what was there has been read
    store_vector(scratch + threadIdx.x * PIECE, f);
    __syncthreads();
    for (int n = threadIdx.x; n < lanes * PIECE; n += THREADS) {
        const int channel = i * lanes * PIECE + n;
        float sum = 0.f;
        for (int slot = 0; slot < THREADS / lanes; slot++) sum += scratch[slot * lanes * PIECE + n];
        if (channel < channels) to[channel] = sum;
    }
}
