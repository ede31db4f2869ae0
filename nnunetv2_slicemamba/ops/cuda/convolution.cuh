// Depthwise convolution of channels-last tokens with a kernel of 3 along each axis and zero padding: one thread's part.
//
// DIMENSIONS is 2 or 3. A thread owns PIECE channels of a strip, STRIP neighbouring tokens of the last axis. A block
// owns CHANNELS channels of STRIPS strips: a tile of neighbouring rows and columns, so that rows that are read more
// than once come from the first-level cache. A row is one (image, slice, line); the tokens of a row are neighbours.
#pragma once
#include "activation.cuh"
#include "elements.cuh"
#include "lanes.cuh"

constexpr int CHANNELS = 64;
constexpr int CHANNEL_THREADS = CHANNELS / PIECE;
constexpr int STRIPS = 16;
constexpr int STRIP = 4;
constexpr int THREADS = CHANNEL_THREADS * STRIPS;
constexpr int WARPS = THREADS / 32;
constexpr int LINES = DIMENSIONS == 3 ? 9 : 3;  // neighbouring rows that a strip reads, itself included
constexpr int TAPS = 3 * LINES;
typedef float TapWeights[TAPS][CHANNELS];
typedef float StripValues[STRIP][PIECE];

// Arguments of the kernels in bss_conv.cu, in the order in which bss_kernels.py packs them. Strides in elements.
struct ConvArgs {
    const void *in;        // what is convolved; token i starts at element i * in_token
    const void *gradient;  // of SiLU's result; dense rows
    const float *weight, *bias;  // (E, TAPS), (E)
    void *out;             // token i starts at element i * out_token
    float *parts;          // (blocks / channel_blocks, E * TAPS + E) partial gradients of weight, then of bias
    u32 rows, tiles;
    int in_token, out_token;
    int depth, height, width, E;
    u32 tile_strips, tile_columns;  // strips beside each other in a tile, which divides STRIPS; tiles beside each other
    u32 channel_blocks;
};

// One thread's strip of a tile.
struct Strip {
    long long token;      // index of its first token
    int depth, line, column, count;  // position of that token; how many tokens exist

    __device__ __forceinline__ Strip(const ConvArgs& p, u32 tile) {
        const u32 slot = threadIdx.x / CHANNEL_THREADS, tile_rows = STRIPS / p.tile_strips;
        const u32 row = tile / p.tile_columns * tile_rows + slot / p.tile_strips;
        column = (tile % p.tile_columns * p.tile_strips + slot % p.tile_strips) * STRIP;
        count = row < p.rows ? min(max(p.width - column, 0), STRIP) : 0;
        line = row % p.height, depth = row / p.height % p.depth;
        token = (long long)row * p.width + column;
    }
};

// The thread's PIECE channels, and how many of them exist.
struct ChannelPiece {
    int local, first, valid;  // in the block, in the row

    __device__ __forceinline__ ChannelPiece(const ConvArgs& p, int block) {
        local = threadIdx.x % CHANNEL_THREADS * PIECE, first = block * CHANNELS + local, valid = max(p.E - first, 0);
    }
};

// Puts the block's weights into shared memory; FLIPPED in the order of the transposed convolution.
template <bool FLIPPED>
__device__ __forceinline__ void load_weights(TapWeights& weights, const ConvArgs& p, int block) {
    for (int i = threadIdx.x; i < CHANNELS * TAPS; i += THREADS) {
        const int channel = i / TAPS, tap = i % TAPS;
        const bool exists = block * CHANNELS + channel < p.E;
        weights[FLIPPED ? TAPS - 1 - tap : tap][channel] =
            exists ? p.weight[(long long)block * CHANNELS * TAPS + i] : 0.f;
    }
    __syncthreads();
}

// Tokens column - 1 .. column + STRIP of neighbouring row `line`, 0 where there is none.
struct Neighbours {
    Piece pieces[STRIP + 2];
    int first, last;  // those that exist
    int valid;

    __device__ __forceinline__ Neighbours(const ConvArgs& p, const Strip& at, const ChannelPiece& c, int line) {
        const int up = DIMENSIONS == 3 ? line / 3 - 1 : 0, down = line % 3 - 1;
        const bool inside = at.count > 0 && at.line + down >= 0 && at.line + down < p.height && at.depth + up >= 0
            && at.depth + up < p.depth;
        valid = c.valid;
        first = at.column > 0 ? 0 : 1, last = inside && valid > 0 ? min(p.width - at.column, STRIP + 1) : -1;
        const long long token = at.token + ((long long)up * p.height + down) * p.width - 1;
        const Element* const from = static_cast<const Element*>(p.in) + token * p.in_token + c.first;
#pragma unroll
        for (int i = 0; i < STRIP + 2; i++) {
            Piece piece = {};
            if (i >= first && i <= last) piece = load_piece(from + (long long)i * p.in_token, valid);
            pieces[i] = piece;
        }
    }

    __device__ __forceinline__ void read(int i, float (&f)[PIECE]) const {
        unpack(pieces[i], f, i >= first && i <= last ? valid : 0, 0.f);
    }
};

// sum = the convolution at the strip's tokens, without bias.
__device__ __forceinline__ void convolve(
    StripValues& sum, const TapWeights& weights, const ConvArgs& p, const Strip& at, const ChannelPiece& c) {
#pragma unroll
    for (int t = 0; t < STRIP; t++)
#pragma unroll
        for (int i = 0; i < PIECE; i++) sum[t][i] = 0.f;
#pragma unroll 1
    for (int line = 0; line < LINES; line++) {
        const Neighbours tokens(p, at, c, line);
        float weight[3][PIECE];
#pragma unroll
        for (int tap = 0; tap < 3; tap++) load_vector(weight[tap], &weights[3 * line + tap][c.local]);
#pragma unroll
        for (int i = 0; i < STRIP + 2; i++) {
            float f[PIECE];
            tokens.read(i, f);
#pragma unroll
            for (int tap = 0; tap < 3; tap++)
                if (i - tap >= 0 && i - tap < STRIP)
#pragma unroll
                    for (int n = 0; n < PIECE; n++) sum[i - tap][n] = fmaf(weight[tap][n], f[n], sum[i - tap][n]);
        }
    }
}

// The piece's biases, 0 for channels that do not exist.
__device__ __forceinline__ void load_bias(float (&bias)[PIECE], const ConvArgs& p, const ChannelPiece& c) {
#pragma unroll
    for (int i = 0; i < PIECE; i++) bias[i] = i < c.valid ? p.bias[c.first + i] : 0.f;
}

__device__ __forceinline__ void store_token(
    const ConvArgs& p, const Strip& at, const ChannelPiece& c, int t, const float (&f)[PIECE]) {
    if (t < at.count) store_piece(static_cast<Element*>(p.out) + (at.token + t) * p.out_token + c.first, f, c.valid);
}
