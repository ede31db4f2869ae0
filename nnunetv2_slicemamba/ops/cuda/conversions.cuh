// The element type and its conversions to and from float32: all of the kernels' inline assembly for half types.
//
// ELEMENT is the type of the tokens and their gradients: 0 float32, 1 float16, 2 bfloat16. A source that defines
// SATURATING as 0 gets infinity for what float16 cannot hold, otherwise +-65504.
#pragma once

#ifndef SATURATING
#define SATURATING 1
#endif

typedef unsigned short u16;
typedef unsigned int u32;

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
#if SATURATING
// Saturates at +-65504 and keeps NaN: a sum that only float16 cannot hold must not turn a training run into NaN.
__device__ __forceinline__ u32 from_floats(float a, float b) {
    u32 r;
    asm("{.reg .b32 t; cvt.rn.f16x2.f32 t, %1, %2; min.NaN.f16x2 t, t, %3; max.NaN.f16x2 %0, t, %4;}"
        : "=r"(r) : "f"(b), "f"(a), "r"(0x7bff7bffu), "r"(0xfbfffbffu));
    return r;
}
#else
__device__ __forceinline__ u32 from_floats(float a, float b) {
    u32 r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(b), "f"(a));
    return r;
}
#endif
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
