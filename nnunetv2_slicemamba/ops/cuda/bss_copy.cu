// Everything small before and after a block's other kernels, in one launch each: the parameters in the compute type and
// A before, the gradients of float32 parameters from partial sums and half products after.
#include "elements.cuh"

constexpr int THREADS = 256;
constexpr int SEGMENTS = 10;
constexpr int SLICES = THREADS / 32;
constexpr int DENSE = THREADS * PIECE;  // numbers of a segment that one block takes where nothing is summed

// Makes of a segment's numbers: CAST and NEGATIVE_EXP write from float32, the others to float32.
enum Kind {
    CAST,          // Element(from)
    NEGATIVE_EXP,  // -exp(from)
    WIDEN,         // float(from), from Elements
    PRODUCTS,      // from * factor
    SUM,           // over the pieces, from float32
    SUM_HALF,      // over the pieces, from Elements, which saturate at float16's largest number; infinity is one of them
};

// Number i of piece n comes from n * piece_step + k * outer_step + e * middle_step + r with (k, e, r) = i's place in
// an array (.., middle, inner), and for SUM simply from n * piece_step + i.
struct Segment {
    const void *from, *factor;
    void *to;
    long long piece_step;
    u32 count, pieces, first_block;
    int kind;
    u32 middle, inner, outer_step, middle_step;
};

struct CopyArgs {
    Segment segments[SEGMENTS];
    int count;
};

__device__ __forceinline__ bool aligned(const void* at) { return reinterpret_cast<unsigned long long>(at) % 16 == 0; }

__device__ __forceinline__ float to_float(Element v) {
    union { Pair pair; Element values[2]; } u = {};
    u.values[0] = v;
    return to_floats(u.pair).x;
}

__device__ __forceinline__ Element to_element(float v) {
    union { Pair pair; Element values[2]; } u;
    u.pair = from_floats(v, 0.f);
    return u.values[0];
}

__device__ __forceinline__ void copy_one(const Segment& s, long long i) {
    const float* const from = static_cast<const float*>(s.from);
    if (s.kind == CAST) static_cast<Element*>(s.to)[i] = to_element(from[i]);
    else if (s.kind == NEGATIVE_EXP) static_cast<float*>(s.to)[i] = -expf(from[i]);
    else if (s.kind == WIDEN) static_cast<float*>(s.to)[i] = to_float(static_cast<const Element*>(s.from)[i]);
    else static_cast<float*>(s.to)[i] = from[i] * static_cast<const float*>(s.factor)[i];
}

// PIECE aligned numbers.
__device__ __forceinline__ void copy_piece(const Segment& s, long long i) {
    float f[PIECE];
    if (s.kind == CAST) {
        load_vector(f, static_cast<const float*>(s.from) + i);
        store_piece(static_cast<Element*>(s.to) + i, f, PIECE);
    } else {
        unpack(load_piece(static_cast<const Element*>(s.from) + i, PIECE), f);
        store_vector(static_cast<float*>(s.to) + i, f);
    }
}

// One block's numbers of a segment without sums.
__device__ __forceinline__ void copy_dense(const Segment& s, u32 block) {
    const long long first = (long long)block * DENSE;
    if ((s.kind == CAST || s.kind == WIDEN) && aligned(s.from) && aligned(s.to) && first + DENSE <= s.count) {
        copy_piece(s, first + threadIdx.x * PIECE);
        return;
    }
    for (long long i = first + threadIdx.x; i < min(first + DENSE, (long long)s.count); i += THREADS) copy_one(s, i);
}

// 32 numbers of a segment: every warp sums each SLICESth piece, then the warps' sums are added.
__device__ __forceinline__ void sum_pieces(const Segment& s, u32 block) {
    __shared__ float slices[SLICES][32];
    const u32 lane = threadIdx.x % 32, slice = threadIdx.x / 32, i = block * 32 + lane;
    float sum = 0.f;
    if (i < s.count) {
        if (s.kind == SUM) {
            const float* const from = static_cast<const float*>(s.from) + i;
#pragma unroll 4
            for (u32 n = slice; n < s.pieces; n += SLICES) sum += from[n * s.piece_step];
        } else {
            const u32 r = i % s.inner, row = i / s.inner, e = row % s.middle, k = row / s.middle;
            const Element* const from =
                static_cast<const Element*>(s.from) + ((long long)k * s.outer_step + (long long)e * s.middle_step + r);
#pragma unroll 4
            for (u32 n = slice; n < s.pieces; n += SLICES) {
                const float v = to_float(from[n * s.piece_step]);
                sum += ELEMENT == 1 && v == v ? fminf(fmaxf(v, -65504.f), 65504.f) : v;
            }
        }
    }
    slices[slice][lane] = sum;
    __syncthreads();
    if (slice > 0 || i >= s.count) return;
    sum = 0.f;
#pragma unroll
    for (int n = 0; n < SLICES; n++) sum += slices[n][lane];
    static_cast<float*>(s.to)[i] = sum;
}

extern "C" __global__ void __launch_bounds__(THREADS) copy_segments(const __grid_constant__ CopyArgs p) {
    int n = 0;
    while (n + 1 < p.count && blockIdx.x >= p.segments[n + 1].first_block) n++;
    const Segment& s = p.segments[n];
    if (s.kind >= SUM) sum_pieces(s, blockIdx.x - s.first_block);
    else copy_dense(s, blockIdx.x - s.first_block);
}
