// Sums over lanes of a warp in a fixed order.
#pragma once

__device__ __forceinline__ float exchange(float v, int mask) { return __shfl_xor_sync(~0u, v, mask); }

// Sums `keep` over two lanes that differ in `mask`; the lane whose bit is set keeps b, the other a.
__device__ __forceinline__ float fold(float a, float b, bool bit, int mask) {
    float keep = bit ? b : a, send = bit ? a : b;
    return keep + exchange(send, mask);
}
