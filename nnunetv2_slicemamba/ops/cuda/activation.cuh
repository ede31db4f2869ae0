// SiLU and its derivative in float32. Where exp(-v) overflows the sigmoid is 0; NaN stays.
#pragma once

__device__ __forceinline__ float sigmoid(float v) { return __fdividef(1.f, 1.f + __expf(-v)); }

__device__ __forceinline__ float silu(float v) { return v * sigmoid(v); }

__device__ __forceinline__ float silu_derivative(float v) {
    const float s = sigmoid(v);
    return s * (1.f + v * (1.f - s));
}
