// Elements of x, dt, B, C and their gradients: loads and stores of pieces of rows.
//
// WIDE_ROWS is 1 where rows can be read 16 bytes at a time and their length is a multiple of 8, else 0.
#pragma once
#include "conversions.cuh"

constexpr int PIECE = 8;  // channels that one thread moves between global and shared memory

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
