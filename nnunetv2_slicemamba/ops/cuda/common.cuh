// What the forward and the backward scan kernels share: settings, element types, loads and stores, softplus.
//
// The host compiles these files with NVRTC and sets
//   ELEMENT      type of x, dt, B, C, y and their gradients: 0 float32, 1 float16, 2 bfloat16
//   STATES       states per channel, padded to 4, 8, 16 or 32 (padding has A = B = C = 0)
//   STAGE        tokens per stage, 16 or 32; a stage lives in shared memory
//   WIDE_ROWS    1: rows of x, dt, y and dy can be read 16 bytes at a time and E is a multiple of 8
//   WIDE_STATES  1: rows of B and C can be read two elements at a time and N is STATES
//   FORWARD_BLOCKS, BACKWARD_BLOCKS   resident blocks per multiprocessor that the registers must allow
//   SHARED_FORWARD, SHARED_BACKWARD   bytes of dynamic shared memory, checked against the structures
//
// Work layout: a block of 4 warps owns 64 channels of one (batch, direction, chunk) and walks its tokens. A lane owns
// 2 channels x STATES/4 states: `group` = lane / 4 picks the channels of the warp's 16, `part` = lane % 4 the states.
#pragma once

typedef unsigned short u16;
typedef unsigned int u32;

constexpr int WARPS = 4;
constexpr int THREADS = 32 * WARPS;
constexpr int LANE_CHANNELS = 2;
constexpr int LANE_STATES = STATES / 4;
constexpr int LANE_VALUES = LANE_CHANNELS * LANE_STATES;
constexpr int WARP_CHANNELS = 8 * LANE_CHANNELS;
constexpr int BLOCK_CHANNELS = WARPS * WARP_CHANNELS;
constexpr int PIECE = 8;  // channels that one thread moves between global and shared memory
constexpr int ROW_THREADS = BLOCK_CHANNELS / PIECE;
constexpr int PASS_ROWS = THREADS / ROW_THREADS;
constexpr int PASSES = STAGE / PASS_ROWS;
constexpr float LOG2E = 1.4426950408889634f;
constexpr float LN2 = 0.6931471805599453f;
static_assert(STAGE == 16 || STAGE == 32, "a lane keeps one token position, so a stage has at most 32 tokens");

extern __shared__ __align__(16) unsigned char shared[];

// Arguments of every kernel of a pass, in the order in which arguments.py packs them. Strides are in elements.
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
};

// ---- element types ----------------------------------------------------------------------------------------------

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

// One thread's PIECE channels of a row.
union Piece {
    Pair pairs[PIECE / 2];
    Element values[PIECE];
    uint4 words[PIECE * sizeof(Element) / 16];
};

// The piece at `at`, of which `valid` channels exist.
__device__ __forceinline__ Piece load_piece(const Element* at, int valid) {
    Piece p;
#pragma unroll
    for (int i = 0; i < (WIDE_ROWS ? int(sizeof(Piece) / 16) : 0); i++)
        p.words[i] = __ldg(reinterpret_cast<const uint4*>(at) + i);
#pragma unroll
    for (int i = 0; i < (WIDE_ROWS ? 0 : PIECE); i++) p.values[i] = i < valid ? __ldg(at + i) : Element(0);
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

// log(1 + exp(v)); a series where 1 + exp(v) would lose digits, the identity where exp(v) would overflow.
__device__ __forceinline__ float softplus(float v) {
    float bounded;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(bounded) : "f"(v), "f"(30.f));
    const float u = exp2_fast(bounded * LOG2E);
    const float small = u * (1.f - u * (0.5f - u * 0.33333333f));
    const float large = log2_fast(1.f + u) * LN2;
    return fmaxf(u < 0.02f ? small : large, v);
}

// d softplus / dv = 1 - exp(-softplus(v)), from delta = softplus(v).
__device__ __forceinline__ float softplus_slope(float delta) {
    float small = delta * (1.f - delta * (0.5f - delta * 0.16666667f));
    return delta < 0.02f ? small : 1.f - exp2_fast(-delta * LOG2E);
}

__device__ __forceinline__ float exchange(float v, int mask) { return __shfl_xor_sync(~0u, v, mask); }

// Sums `keep` over two lanes that differ in `mask`; the lane whose bit is set keeps b, the other a.
__device__ __forceinline__ float fold(float a, float b, bool bit, int mask) {
    float keep = bit ? b : a, send = bit ? a : b;
    return keep + exchange(send, mask);
}

// ---- work layout ------------------------------------------------------------------------------------------------

// Where a thread stands; chunk counts from 0 among `chunks` chunks that the kernel runs.
struct Place {
    int lane, warp, group, part;  // see the head of this file
    int block, chunk, k, b;       // channel block, chunk, direction, batch element
    int piece, row;               // the thread's piece and first row when it moves rows
    int piece_channel, piece_valid;  // first channel of the piece, 0 if it does not exist; how many channels exist
    int channel, valid;           // first of the lane's two channels and how many of them exist

    __device__ __forceinline__ Place(const ScanArgs& p, int chunks) {
        const int t = threadIdx.x;
        lane = t & 31, warp = t >> 5, group = lane >> 2, part = lane & 3;
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
__device__ __forceinline__ void load_rates(LaneStates& a, const ScanArgs& p, const Place& at) {
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
            union { Pair pair; Element values[2]; } u;
            u.values[0] = valid > 0 ? __ldg(at) : Element(0);
            u.values[1] = valid > 1 ? __ldg(at + 1) : Element(0);
            pairs[i] = u.pair;
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

// ---- kernels that both passes use -------------------------------------------------------------------------------

// Turns chunk-local results into carries: chunk_state[s] becomes the state at the start of chunk s (reverse: the
// gradient that arrives at its end). One thread per (batch, direction, channel, state).
__device__ __forceinline__ void carry_chunks(const ScanArgs& p, bool reverse) {
    constexpr int AHEAD = 8;  // loads in flight; the recurrence itself is short
    const int padded = p.channel_blocks * BLOCK_CHANNELS, per_chunk = padded * STATES;
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const int element = i % per_chunk;
    const long long direction = i / per_chunk;  // batch * K + k
    if (direction >= (long long)p.batch * p.K) return;
    const int lane = element / LANE_VALUES % 32, warp = element / (32 * LANE_VALUES);
    const int c = element / LANE_STATES % LANE_CHANNELS, state = (lane & 3) * LANE_STATES + element % LANE_STATES;
    const int channel = warp * WARP_CHANNELS + (lane >> 2) * LANE_CHANNELS + c;
    const bool exists = channel < p.E && state < p.N;
    const float a = exists ? p.A[(direction % p.K * p.E + channel) * p.N + state] * LOG2E : 0.f;
    float* states = p.chunk_state + direction * p.chunks * per_chunk + element;
    const float* deltas = p.chunk_delta + direction * p.chunks * padded + channel;
    const int last = p.chunks - 1;
    float h = 0.f;
    for (int s0 = 0; s0 < p.chunks; s0 += AHEAD) {
        float local[AHEAD], decay[AHEAD];
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            const int s = s0 + u, at = reverse ? last - s : s;
            const bool used = s < last;  // nothing follows the last chunk, and no pass wrote it
            local[u] = used ? states[(long long)at * per_chunk] : 0.f;
            decay[u] = used ? deltas[(long long)at * padded] : 0.f;
        }
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            const int s = s0 + u, at = reverse ? last - s : s;
            if (s < p.chunks) states[(long long)at * per_chunk] = h;
            h = fmaf(exp2_fast(a * decay[u]), h, local[u]);
        }
    }
}

constexpr int COMBINE_ROWS = 4;  // rows per thread, which share the thread's sum of D

// out[b, l, e] = sum over k of y[b, k, l, e], plus (sum over k of D[k, e]) * in[b, l, e], for one piece of 8 channels
// (one channel where rows are not aligned) of COMBINE_ROWS rows.
template <int DIRECTIONS> __device__ __forceinline__ void combine_rows(const ScanArgs& p, const void* in, long long index) {
    constexpr int WIDTH = WIDE_ROWS ? PIECE : 1;
    const int K = DIRECTIONS ? DIRECTIONS : p.K, per_row = p.E / WIDTH;
    const long long rows = (long long)p.batch * p.L, step = (rows + COMBINE_ROWS - 1) / COMBINE_ROWS;
    const int e = index % per_row * WIDTH;
    const long long first = index / per_row;
    if (first >= step) return;
    float D[PIECE] = {};
    for (int k = 0; k < K; k++) {
        float f[WIDTH];
        load_vector(f, p.D + (long long)k * p.E + e);
#pragma unroll
        for (int i = 0; i < WIDTH; i++) D[i] += f[i];
    }
    for (int r = 0; r < COMBINE_ROWS; r++) {
        const long long row = first + r * step;
        if (row >= rows) return;
        const long long b = row / p.L, l = row - b * p.L;
        const Element* y = static_cast<const Element*>(p.y) + (b * K * p.L + l) * p.E + e;
        const long long direction = (long long)p.L * p.E;
        float sum[PIECE], f[PIECE];
        Piece pieces[DIRECTIONS ? DIRECTIONS : 1];
        if constexpr (DIRECTIONS > 0) {
#pragma unroll
            for (int k = 0; k < DIRECTIONS; k++) pieces[k] = load_piece(y + k * direction, WIDTH);
        }
        unpack(load_piece(static_cast<const Element*>(in) + row * p.E + e, WIDTH), sum);
#pragma unroll
        for (int i = 0; i < PIECE; i++) sum[i] *= D[i];
        if constexpr (DIRECTIONS > 0) {
#pragma unroll
            for (int k = 0; k < DIRECTIONS; k++) {
                unpack(pieces[k], f);
#pragma unroll
                for (int i = 0; i < PIECE; i++) sum[i] += f[i];
            }
        } else {
            for (int k = 0; k < K; k++) {
                unpack(load_piece(y + k * direction, WIDTH), f);
#pragma unroll
                for (int i = 0; i < PIECE; i++) sum[i] += f[i];
            }
        }
        store_piece(static_cast<Element*>(p.out) + row * p.E + e, sum, WIDTH);
    }
}

__device__ __forceinline__ void combine(const ScanArgs& p, const void* in, long long index) {
    if (p.K == 4) combine_rows<4>(p, in, index);
    else if (p.K == 6) combine_rows<6>(p, in, index);
    else combine_rows<0>(p, in, index);
}
