// Stands in for the kernels' conversions.cuh, whose inline assembly a CPU does not have.
#pragma once

#ifndef SATURATING
#define SATURATING 1
#endif

typedef unsigned short u16;
typedef unsigned int u32;

#if ELEMENT == 0
typedef float Element;
typedef uint2 Pair;
inline float2 to_floats(uint2 v) { return make_float2(__uint_as_float(v.x), __uint_as_float(v.y)); }
inline uint2 from_floats(float a, float b) { return make_uint2(__float_as_uint(a), __float_as_uint(b)); }
#else
typedef u16 Element;
typedef u32 Pair;
#if ELEMENT == 1
inline float one_to_float(u16 v) {
    const int exponent = v >> 10 & 31, mantissa = v & 1023;
    float f = exponent == 0 ? ldexpf(float(mantissa), -24) : ldexpf(float(1024 + mantissa), exponent - 25);
    if (exponent == 31) f = mantissa ? NAN : INFINITY;
    return v >> 15 ? -f : f;
}
// To the nearest, ties to even; saturates at +-65504 if SATURATING, NaN stays.
inline u16 one_from_float(float v) {
    if (v != v) return 0x7fff;
    const u16 sign = signbit(v) ? 0x8000 : 0;
    const float a = fabsf(v);
    if (a >= 65504.f) return sign | (SATURATING || a < 65520.f ? 0x7bff : 0x7c00);
    int exponent;
    frexpf(a, &exponent);
    exponent = max(exponent - 11, -24);  // of the last place
    const float places = nearbyintf(ldexpf(a, -exponent));
    if (places == 0.f) return sign;
    const float rounded = ldexpf(places, exponent);
    frexpf(rounded, &exponent);
    if (exponent < -13) return sign | u16(ldexpf(rounded, 24));
    return sign | u16((exponent + 14) << 10) | u16(ldexpf(rounded, 11 - exponent) - 1024.f);
}
#else
inline float one_to_float(u16 v) { return __uint_as_float(u32(v) << 16); }
inline u16 one_from_float(float v) {
    if (v != v) return 0x7fff;
    const u32 u = __float_as_uint(v);
    return u16((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
#endif
inline float2 to_floats(u32 v) { return make_float2(one_to_float(u16(v)), one_to_float(u16(v >> 16))); }
inline u32 from_floats(float a, float b) { return one_from_float(a) | u32(one_from_float(b)) << 16; }
#endif
