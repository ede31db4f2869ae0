// Elements of x, dt, B, C and their gradients: conversions to and from float32, loads and stores of pieces of rows.
#pragma once
#include "settings.cuh"

#if ELEMENT == 0
typedef float Element;
typedef uint2 Pair;
typedef float SavedState;
constexpr u32 MINUS_INFINITY = 0xff800000u;
__device__ __forceinline__ float2 to_floats(uint2 v) { return make_float2(__uint_as_float(v.x), __uint_as_float(v.y)); }
__device__ __forceinline__ uint2 from_floats(float a, float b) {
    return make_uint2(__float_as_uint(a), __float_as_uint(b));
}
#else
typedef u16 Element;
typedef u32 Pair;
typedef u16 SavedState;  // bfloat16: half the memory, and its range is float32's
#if ELEMENT == 1
constexpr u32 MINUS_INFINITY = 0xfc00fc00u;  // two of them
__device__ __forceinline__ float2 to_floats(u32 v) {
    float2 r;
    asm("{.reg .f16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b;}" : "=f"(r.x), "=f"(r.y) : "r"(v));
    return r;
}
// Saturates at +-65504 and keeps NaN: a sum that only float16 cannot hold must not turn a training run into NaN.
__device__ __forceinline__ u32 from_floats(float a, float b) {
    u32 r;
    asm("{.reg .b32 t; cvt.rn.f16x2.f32 t, %1, %2; min.NaN.f16x2 t, t, %3; max.NaN.f16x2 %0, t, %4;}"
        : "=r"(r) : "f"(b), "f"(a), "r"(0x7bff7bffu), "r"(0xfbfffbffu));
    return r;
}
#else
constexpr u32 MINUS_INFINITY = 0xff80ff80u;
__device__ __forceinline__ float2 to_floats(u32 v) {
    return make_float2(__uint_as_float(v << 16), __uint_as_float(v & 0xffff0000u));
}
__device__ __forceinline__ u32 from_floats(float a, float b) {
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(b), "f"(a));
    return r;
}
#endif
#endif

// Two elements read one by one, of which `valid` exist; the others are 0.
__device__ __forceinline__ Pair load_pair(const Element* at, int valid) {
#if ELEMENT == 0
    return make_uint2(valid > 0 ? __float_as_uint(__ldg(at)) : 0u, valid > 1 ? __float_as_uint(__ldg(at + 1)) : 0u);
#else
    u32 low = 0u, high = 0u;
    if (valid > 0) low = __ldg(at);
    if (valid > 1) high = __ldg(at + 1);
    return low | high << 16;
#endif
}

// One thread's PIECE channels of a row.
union Piece {
    Pair pairs[PIECE / 2];
    Element values[PIECE];
    uint4 words[PIECE * sizeof(Element) / 16];
};

// The piece at `at`, of which `valid` channels exist.
__device__ __forceinline__ Piece load_piece(const Element* at, int valid) {
    Piece p;
#if WIDE_ROWS
#pragma unroll
    for (int i = 0; i < int(sizeof(Piece) / 16); i++) p.words[i] = __ldg(reinterpret_cast<const uint4*>(at) + i);
#else
#pragma unroll
    for (int i = 0; i < PIECE / 2; i++) p.pairs[i] = load_pair(at + 2 * i, valid - 2 * i);
#endif
    return p;
}

// The piece of row `row`; without branches: where there is no such row (-1) or channel, row 0 is read from a base that
// exists (see Place) and replaced by `filler`.
__device__ __forceinline__ Piece load_row(const Element* base, int stride, int row, int valid, u32 filler) {
    Piece p = load_piece(base + (long long)max(row, 0) * stride, valid);
    const bool live = row >= 0 && valid > 0;
#pragma unroll
    for (int i = 0; i < int(sizeof(Piece) / 16); i++) {
        uint4& w = p.words[i];
        w.x = live ? w.x : filler, w.y = live ? w.y : filler, w.z = live ? w.z : filler, w.w = live ? w.w : filler;
    }
    return p;
}

__device__ __forceinline__ void unpack(const Piece& p, float (&f)[PIECE]) {
#pragma unroll
    for (int i = 0; i < PIECE / 2; i++) {
        float2 v = to_floats(p.pairs[i]);
        f[2 * i] = v.x;
        f[2 * i + 1] = v.y;
    }
}

// The same for a row of which `valid` channels exist, with `missing` for the others. Narrow rows get it a second time
// here: built with CUDA 13.0, 16-bit elements whose load was skipped were seen to hold parts of the row's address.
__device__ __forceinline__ void unpack(const Piece& p, float (&f)[PIECE], int valid, float missing) {
    unpack(p, f);
#pragma unroll
    for (int i = 0; i < (WIDE_ROWS ? 0 : PIECE); i++) f[i] = i < valid ? f[i] : missing;
}

__device__ __forceinline__ void store_piece(Element* at, const float (&f)[PIECE], int valid) {
    Piece p;
#pragma unroll
    for (int i = 0; i < PIECE / 2; i++) p.pairs[i] = from_floats(f[2 * i], f[2 * i + 1]);
#if WIDE_ROWS
#pragma unroll
    for (int i = 0; i < int(sizeof(Piece) / 16); i++)
        if (valid > 0) reinterpret_cast<uint4*>(at)[i] = p.words[i];
#else
#pragma unroll
    for (int i = 0; i < PIECE; i++)
        if (i < valid) at[i] = p.values[i];
#endif
}

// Two neighbouring channels of a row; `valid` of them exist.
__device__ __forceinline__ void store_pair(Element* at, float a, float b, int valid) {
    Pair v = from_floats(a, b);
#if WIDE_ROWS
    if (valid > 0) *reinterpret_cast<Pair*>(at) = v;
#else
    union { Pair pair; Element values[2]; } u;
    u.pair = v;
    if (valid > 0) at[0] = u.values[0];
    if (valid > 1) at[1] = u.values[1];
#endif
}

// COUNT consecutive floats of shared memory in as few accesses as their alignment allows.
template <int COUNT> __device__ __forceinline__ void load_vector(float (&f)[COUNT], const float* at) {
    if constexpr (COUNT % 4 == 0) {
#pragma unroll
        for (int i = 0; i < COUNT; i += 4) {
            float4 v = *reinterpret_cast<const float4*>(at + i);
            f[i] = v.x, f[i + 1] = v.y, f[i + 2] = v.z, f[i + 3] = v.w;
        }
    } else if constexpr (COUNT == 2) {
        float2 v = *reinterpret_cast<const float2*>(at);
        f[0] = v.x, f[1] = v.y;
    } else {
        f[0] = at[0];
    }
}

template <int COUNT> __device__ __forceinline__ void store_vector(float* at, const float (&f)[COUNT]) {
    if constexpr (COUNT % 4 == 0) {
#pragma unroll
        for (int i = 0; i < COUNT; i += 4)
            *reinterpret_cast<float4*>(at + i) = make_float4(f[i], f[i + 1], f[i + 2], f[i + 3]);
    } else if constexpr (COUNT == 2) {
        *reinterpret_cast<float2*>(at) = make_float2(f[0], f[1]);
    } else {
        at[0] = f[0];
    }
}
