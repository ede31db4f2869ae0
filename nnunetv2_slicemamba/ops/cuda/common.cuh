// Common to the scan kernels: their arguments, arithmetic, work layout, and reading rows.
#pragma once
#include "lanes.cuh"
#include "settings.cuh"

extern __shared__ __align__(16) unsigned char shared[];

// Arguments of every kernel of a pass, in the order in which scan.py packs them. Strides are in elements.
struct ScanArgs {
    const void *x, *dt, *B, *C, *dy;
    const float *A, *bias, *D;
    const int* order;       // (K, L) raster index of every scan position
    void *y;                // forward: (batch, K, L, E) outputs; backward: the same for the gradient of x
    void *states;           // state at the start of every stage, see state_offset()
    float *chunk_state;     // state (backward: incoming gradient) at the start (end) of every chunk
    float *chunk_delta;     // (batch, K, chunks, padded E) sum of delta over the chunk
    void *out;              // (batch, L, E) result, summed over the directions
    void *ddt, *dB, *dC;    // (batch, L, K, E), (batch, L, K, N)
    float *state_parts;     // (channel blocks, batch, L, K, 2 STATES) partial sums of dB and dC
    float *A_parts, *bias_parts, *D_parts;  // (batch, chunks, K, padded E, STATES), (.., K, padded E), (.., padded E)
    float *dA, *dbias, *dD;
    long long dt_batch, B_batch, C_batch;
    int dt_token, dt_direction, B_token, B_direction, C_token, C_direction;
    int batch, L, E, K, N;
    int channel_blocks, stages, chunks, chunk_stages;
    int param_blocks, state_blocks;  // leading thread blocks of the finishing kernel
    int state_row;                   // stride of dB and dC from one (batch, token, direction) to the next
};

// ---- arithmetic -------------------------------------------------------------------------------------------------

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float log2_fast(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// log(1 + exp(v)): a series where 1 + exp(v) would lose digits, the identity where exp(v) would overflow. For float32
// the series reaches further, so that the approximate logarithm costs no more than two digits.
__device__ __forceinline__ float softplus(float v) {
    constexpr float SERIES_UP_TO = ELEMENT == 0 ? 0.125f : 0.02f;
    float bounded;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(bounded) : "f"(v), "f"(30.f));
    const float u = exp2_fast(bounded * LOG2E);
    float series = 0.33333333f;
    if (ELEMENT == 0) series = fmaf(u, fmaf(u, fmaf(u, -0.16666667f, 0.2f), -0.25f), series);
    const float small = u * (1.f - u * (0.5f - u * series));
    const float large = log2_fast(1.f + u) * LN2;
    return fmaxf(u < SERIES_UP_TO ? small : large, v);
}

// d softplus / dv = 1 - exp(-softplus(v)), from delta = softplus(v).
__device__ __forceinline__ float softplus_derivative(float delta) {
    constexpr float SERIES_UP_TO = ELEMENT == 0 ? 0.25f : 0.02f;
    float series = 0.16666667f;
    if (ELEMENT == 0) series = fmaf(delta, fmaf(delta, fmaf(delta, -1.f / 720.f, 1.f / 120.f), -1.f / 24.f), series);
    const float small = delta * (1.f - delta * (0.5f - delta * series));
    return delta < SERIES_UP_TO ? small : 1.f - exp2_fast(-delta * LOG2E);
}

// ---- work layout ------------------------------------------------------------------------------------------------

// A thread's place; chunk counts from 0 among `chunks` chunks that the kernel runs.
struct Place {
    int lane, warp, group, part;  // see the head of this file
    int block, chunk, k, b;       // channel block, chunk, direction, batch element
    int piece, row;               // the thread's piece and first row when it moves rows
    int piece_channel, piece_valid;  // first channel of the piece, 0 if it does not exist; how many channels exist
    int channel, valid;           // first of the lane's two channels and how many of them exist

    __device__ __forceinline__ Place(const ScanArgs& p, int chunks) {
        const int t = threadIdx.x;
        lane = t & 31, warp = t >> 5, group = group_of(lane), part = part_of(lane);
        u32 rest = blockIdx.x;
        block = rest % p.channel_blocks, rest /= p.channel_blocks;
        chunk = rest % chunks, rest /= chunks;
        k = rest % p.K, b = rest / p.K;
        piece = t % ROW_THREADS, row = t / ROW_THREADS;
        piece_channel = block * BLOCK_CHANNELS + PIECE * piece;
        piece_valid = p.E - piece_channel;
        piece_channel = piece_valid > 0 ? piece_channel : 0;
        channel = block * BLOCK_CHANNELS + warp * WARP_CHANNELS + group * LANE_CHANNELS;
        valid = p.E - channel;
    }

    // Offset of this lane's values in arrays of (.., padded E, STATES); `index` counts (batch, K, stage or chunk).
    // Lanes are consecutive, so that a warp's accesses are.
    __device__ __forceinline__ long long state_offset(const ScanArgs& p, long long index) const {
        long long unit = (index * p.channel_blocks + block) * WARPS + warp;
        return (unit * 32 + lane) * LANE_VALUES;
    }
};

typedef float LaneStates[LANE_CHANNELS][LANE_STATES];

// A times log2(e), so that exp(delta A) is one exp2.
__device__ __forceinline__ void load_A(LaneStates& a, const ScanArgs& p, const Place& at) {
#pragma unroll
    for (int c = 0; c < LANE_CHANNELS; c++)
#pragma unroll
        for (int n = 0; n < LANE_STATES; n++) {
            const int state = at.part * LANE_STATES + n;
            const bool exists = c < at.valid && state < p.N;
            a[c][n] = exists ? p.A[((long long)at.k * p.E + at.channel + c) * p.N + state] * LOG2E : 0.f;
        }
}

// WORDS consecutive 4-byte words of global memory, aligned to their size or to 16 bytes.
template <int WORDS> __device__ __forceinline__ void load_words(u32 (&w)[WORDS], const void* at) {
    if constexpr (WORDS % 4 == 0) {
#pragma unroll
        for (int i = 0; i < WORDS / 4; i++) {
            const uint4 v = static_cast<const uint4*>(at)[i];
            w[4 * i] = v.x, w[4 * i + 1] = v.y, w[4 * i + 2] = v.z, w[4 * i + 3] = v.w;
        }
    } else if constexpr (WORDS == 2) {
        const uint2 v = *static_cast<const uint2*>(at);
        w[0] = v.x, w[1] = v.y;
    } else {
        w[0] = *static_cast<const u32*>(at);
    }
}

template <int WORDS> __device__ __forceinline__ void store_words(void* at, const u32 (&w)[WORDS]) {
    if constexpr (WORDS % 4 == 0) {
#pragma unroll
        for (int i = 0; i < WORDS / 4; i++)
            static_cast<uint4*>(at)[i] = make_uint4(w[4 * i], w[4 * i + 1], w[4 * i + 2], w[4 * i + 3]);
    } else if constexpr (WORDS == 2) {
        *static_cast<uint2*>(at) = make_uint2(w[0], w[1]);
    } else {
        *static_cast<u32*>(at) = w[0];
    }
}

__device__ __forceinline__ void load_states(LaneStates& h, const float* at) {
    u32 words[LANE_VALUES];
    load_words(words, at);
#pragma unroll
    for (int i = 0; i < LANE_VALUES; i++) h[i / LANE_STATES][i % LANE_STATES] = __uint_as_float(words[i]);
}

__device__ __forceinline__ void store_states(float* at, const LaneStates& h) {
    u32 words[LANE_VALUES];
#pragma unroll
    for (int i = 0; i < LANE_VALUES; i++) words[i] = __float_as_uint(h[i / LANE_STATES][i % LANE_STATES]);
    store_words(at, words);
}

// The same in bfloat16.
__device__ __forceinline__ void load_states(LaneStates& h, const u16* at) {
    u32 words[LANE_VALUES / 2];
    load_words(words, at);
#pragma unroll
    for (int i = 0; i < LANE_VALUES; i++)
        h[i / LANE_STATES][i % LANE_STATES] = __uint_as_float(i % 2 ? words[i / 2] & 0xffff0000u : words[i / 2] << 16);
}

__device__ __forceinline__ void store_states(u16* at, const LaneStates& h) {
    u32 words[LANE_VALUES / 2];
#pragma unroll
    for (int i = 0; i < LANE_VALUES / 2; i++) {
        const float low = h[2 * i / LANE_STATES][2 * i % LANE_STATES];
        const float high = h[(2 * i + 1) / LANE_STATES][(2 * i + 1) % LANE_STATES];
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(words[i]) : "f"(high), "f"(low));
    }
    store_words(at, words);
}

// Reads rows of B and C (MATRICES 2) or of one of them: a thread always reads the same two states of one matrix. Past
// the end of the sequence row 0 is read: delta and dy are 0 there, so B and C do not matter.
template <int MATRICES> struct StateRows {
    static constexpr int PAIRS = MATRICES * STATES / 2;  // pairs per token
    static constexpr int STEP = THREADS / PAIRS;         // tokens per pass
    static constexpr int LOADS = (STAGE + STEP - 1) / STEP;
    const Element* base;
    int stride, token, matrix, state, valid;
    Pair pairs[LOADS];

    __device__ __forceinline__ StateRows(const ScanArgs& p, const Place& at, bool only_C) {
        const int pair = threadIdx.x % PAIRS;
        token = threadIdx.x / PAIRS, matrix = pair / (STATES / 2), state = 2 * (pair % (STATES / 2));
        valid = p.N - state;
        const bool from_C = only_C || matrix == 1;
        const Element* const origin = static_cast<const Element*>(from_C ? p.C : p.B) + (valid > 0 ? state : 0);
        base = origin + at.b * (from_C ? p.C_batch : p.B_batch) + (long long)at.k * (from_C ? p.C_direction : p.B_direction);
        stride = from_C ? p.C_token : p.B_token;
    }

    // position: lane t of the warp holds the raster index of the stage's token t, or -1 past the end.
    __device__ __forceinline__ void load(int position) {
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const int row = __shfl_sync(~0u, position, (token + i * STEP) & 31);
            const Element* const at = base + (long long)max(row, 0) * stride;
#if WIDE_STATES
            pairs[i] = __ldg(reinterpret_cast<const Pair*>(at));
#else
            pairs[i] = load_pair(at, valid);
#endif
        }
    }

    // Calls write(token, matrix, state, values of two states).
    template <typename Write> __device__ __forceinline__ void put(Write write) const {
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const int t = token + i * STEP;
            if (STAGE % STEP == 0 || t < STAGE) write(t, matrix, state, to_floats(this->pairs[i]));
        }
    }
};

// Swizzle of the 16-byte words of a row of (delta, delta x) pairs, against shared memory bank conflicts.
__device__ __forceinline__ int swizzle(int word) { return word ^ ((word >> 3) & 3); }

// Raster index of the stage's token `lane`, -1 past the end of the chunk's tokens.
__device__ __forceinline__ int load_position(const ScanArgs& p, const Place& at, int stage) {
    const long long t = (long long)stage * STAGE + at.lane;
    return at.lane < STAGE && stage >= 0 && t < p.L ? __ldg(p.order + (long long)at.k * p.L + t) : -1;
}
