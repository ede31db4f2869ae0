// Instance norm and the leaky ReLU behind it, and their gradients, of rows (samples, positions, C): channels last.
//
// A block has a slice of the channels of one sample and a chunk of its positions. `lanes` neighbouring threads share a
// position, PIECE channels each. A large image takes two launches, whose blocks hand over partial results through
// `parts`: every block of the second launch adds up its sample's, in the same order. A small image is one chunk, and
// one launch does both. The second walk goes backwards, so that it begins with what the cache still holds.
//
// Sums are made in an order that follows from the sizes alone: two runs give the same bits.
#define SATURATING 0  // as PyTorch's, so that a gradient scaler notices what float16 cannot hold
#include "rows.cuh"

// In the order in which instance_norm.py packs them.
struct InstanceNormArgs {
    const void *x, *gradient;     // gradient: of the result, and like it
    const float *weight, *bias;
    float *moments;               // (samples, 2, C) mean and 1 / deviation
    void *out;                    // the result, or the gradient of x
    float *parts;                 // (samples, chunks, 2, C) mean and sum of squared deviations, or the gradients' sums
    float *parameters;            // (2, C) gradients of weight and bias
    long long positions, chunk;   // per sample, per chunk; the last chunk may be shorter
    int C, lanes, slices, chunks, samples;
    float eps, slope;
};

// positions whose loads a thread has in flight: of one tensor, of two
constexpr int GROUP = ELEMENT == 0 ? 2 : 4, PAIR = GROUP / 2;

// Mean and sum of squared deviations of `count` values. Merged, not summed as squares: exact for any mean.
struct Moments {
    float count, mean, squares;
};

__device__ __forceinline__ Moments merge(Moments a, Moments b) {
    const float count = a.count + b.count, difference = b.mean - a.mean;
    const float share = count > 0.f ? __fdividef(b.count, count) : 0.f;
    return {count, fmaf(difference, share, a.mean), a.squares + b.squares + difference * difference * (a.count * share)};
}

// Sums of g and of g xhat, where g is the gradient behind the norm.
struct Sums {
    float g, product;
};

__device__ __forceinline__ Sums merge(Sums a, Sums b) { return {a.g + b.g, a.product + b.product}; }

struct Scratch {
    float first[THREADS * PIECE], second[THREADS * PIECE];
    union {
        Moments moments[THREADS];
        Sums sums[THREADS];
    };
};

// The block's place. A column is a channel of the slice; `column` is the one that the thread has in sums over rows.
struct Place {
    int slice, chunk, sample, row, rows, width, column;
    int channel;                  // of the thread's piece
    int valid;                    // its channels that exist, 0 or less for none
    long long count;              // positions of the chunk
    long long at;                 // offset of the thread's first piece
};

__device__ __forceinline__ long long chunk_positions(const InstanceNormArgs& p, int chunk) {
    return min(p.chunk, p.positions - chunk * p.chunk);
}

__device__ __forceinline__ Place place_of(const InstanceNormArgs& p, int block) {
    Place at;
    at.slice = block % p.slices, at.chunk = block / p.slices % p.chunks, at.sample = block / p.slices / p.chunks;
    at.row = threadIdx.x / p.lanes, at.rows = THREADS / p.lanes, at.width = p.lanes * PIECE;
    at.channel = (at.slice * p.lanes + threadIdx.x % p.lanes) * PIECE, at.valid = p.C - at.channel;
    at.column = at.slice * at.width + threadIdx.x % at.width;
    at.count = chunk_positions(p, at.chunk);
    at.at = (at.sample * p.positions + at.chunk * p.chunk + at.row) * p.C + at.channel;
    return at;
}

// Positions of the chunk that row `row` of threads has.
__device__ __forceinline__ int positions_of(const Place& at, int row) {
    return at.count > row ? int((at.count - row + at.rows - 1) / at.rows) : 0;
}

// Calls body(k, exist) for the groups of N of a thread's `own` positions, numbers k to k + exist - 1. Inlined, so that
// full groups do not ask for each position whether it exists.
template <int N, class Body> __device__ __forceinline__ void for_groups(int own, const Body& body) {
    int k = 0;
    for (; k + N <= own; k += N) body(k, N);
    if (k < own) body(k, own - k);
}

// Reads one piece, the last time before it is needed again much later if LAST.
template <bool LAST> __device__ __forceinline__ Piece read(const void* rows, long long offset, int valid) {
    const Element* const from = static_cast<const Element*>(rows) + offset;
#if WIDE_ROWS
    if constexpr (LAST) {
        Piece piece;
#pragma unroll
        for (int i = 0; i < int(sizeof(Piece) / 16); i++) piece.words[i] = __ldcs(reinterpret_cast<const uint4*>(from) + i);
        return piece;
    }
#endif
    return load_piece(from, valid);
}

__device__ __forceinline__ float piece_value(const Piece& piece, int n) {
    const float2 pair = to_floats(piece.pairs[n / 2]);
    return n % 2 ? pair.y : pair.x;
}

// Adds a group, of which `exist` positions do, to the running moments of `count` positions.
__device__ __forceinline__ void absorb(
    float (&mean)[PIECE], float (&squares)[PIECE], float count, const Piece (&x)[GROUP], int exist) {
    const float added = exist, share = __fdividef(added, count + added), inverse = 1.f / added;
    const float weight = count * share;
#pragma unroll
    for (int n = 0; n < PIECE; n++) {
        float sum = 0.f, own = 0.f;
#pragma unroll
        for (int i = 0; i < GROUP; i++) sum += i < exist ? piece_value(x[i], n) : 0.f;
        const float centre = sum * inverse, difference = centre - mean[n];
#pragma unroll
        for (int i = 0; i < GROUP; i++) {
            const float deviation = i < exist ? piece_value(x[i], n) - centre : 0.f;
            own = fmaf(deviation, deviation, own);
        }
        mean[n] = fmaf(difference, share, mean[n]);
        squares[n] += fmaf(difference * difference, weight, own);
    }
}

// Adds every column up over the block's threads; each thread gets the total of its column.
template <class T> __device__ __forceinline__ T total(T mine, int width, T* tree) {
    __syncthreads();  // what was there has been read
    tree[threadIdx.x] = mine;
    for (int half = THREADS / 2; half >= width; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) tree[threadIdx.x] = merge(tree[threadIdx.x], tree[threadIdx.x + half]);
    }
    __syncthreads();
    return tree[threadIdx.x % width];
}

// Puts the threads' pieces side by side: (rows, width) each.
__device__ __forceinline__ void spread(const float (&first)[PIECE], const float (&second)[PIECE], Scratch& scratch) {
    __syncthreads();
    store_vector(scratch.first + threadIdx.x * PIECE, first);
    store_vector(scratch.second + threadIdx.x * PIECE, second);
    __syncthreads();
}

// The thread's own piece of what the threads of the columns know.
__device__ __forceinline__ void collect(
    float (&first)[PIECE], float (&second)[PIECE], float of_first, float of_second, const Place& at, Scratch& scratch) {
    __syncthreads();
    if (threadIdx.x < at.width) scratch.first[threadIdx.x] = of_first, scratch.second[threadIdx.x] = of_second;
    __syncthreads();
    const int from = at.channel - at.slice * at.width;
    load_vector(first, scratch.first + from);
    load_vector(second, scratch.second + from);
}

// ---- forward ----------------------------------------------------------------------------------------------------

// Moments of the chunk in the thread's column.
__device__ __forceinline__ Moments chunk_moments(const InstanceNormArgs& p, const Place& at, Scratch& scratch) {
    float mean[PIECE] = {}, squares[PIECE] = {};
    const int own = at.valid > 0 ? positions_of(at, at.row) : 0;
    const long long step = (long long)at.rows * p.C;
    for_groups<GROUP>(own, [&](int k, int exist) {
        Piece x[GROUP];
#pragma unroll
        for (int i = 0; i < GROUP; i++) x[i] = i < exist ? read<false>(p.x, at.at + (k + i) * step, at.valid) : Piece{};
        absorb(mean, squares, k, x, exist);
    });
    spread(mean, squares, scratch);
    Moments mine = {0.f, 0.f, 0.f};
    const int column = threadIdx.x % at.width;
    for (int row = threadIdx.x / at.width; row < at.rows; row += THREADS / at.width) {
        const int place = row * at.width + column;
        mine = merge(mine, {float(positions_of(at, row)), scratch.first[place], scratch.second[place]});
    }
    return total(mine, at.width, scratch.moments);
}

// Writes the result of the chunk. moments: of the whole sample in the thread's column.
__device__ __forceinline__ void normalise_chunk(
    const InstanceNormArgs& p, const Place& at, Moments moments, Scratch& scratch) {
    const float deviation = rsqrtf(moments.squares / moments.count + p.eps);
    if (at.chunk == 0 && threadIdx.x < at.width && at.column < p.C) {
        float* const to = p.moments + 2ll * at.sample * p.C + at.column;
        to[0] = moments.mean, to[p.C] = deviation;
    }
    float mean[PIECE], scale[PIECE], bias[PIECE];
    collect(mean, scale, moments.mean, deviation, at, scratch);
    if (at.valid <= 0) return;
    load_floats(bias, p.weight + at.channel, at.valid);
#pragma unroll
    for (int n = 0; n < PIECE; n++) scale[n] *= bias[n];
    load_floats(bias, p.bias + at.channel, at.valid);
    const int own = positions_of(at, at.row);
    const long long step = (long long)at.rows * p.C, end = at.at + (own - 1) * step;
    for_groups<GROUP>(own, [&](int k, int exist) {
        Piece x[GROUP];
#pragma unroll
        for (int i = 0; i < GROUP; i++) x[i] = i < exist ? read<true>(p.x, end - (k + i) * step, at.valid) : Piece{};
#pragma unroll
        for (int i = 0; i < GROUP; i++) {
            float f[PIECE];
            unpack(x[i], f);
#pragma unroll
            for (int n = 0; n < PIECE; n++) {
                f[n] = fmaf(f[n] - mean[n], scale[n], bias[n]);
                f[n] = f[n] > 0.f ? f[n] : f[n] * p.slope;
            }
            if (i < exist) store_piece(static_cast<Element*>(p.out) + end - (k + i) * step, f, at.valid);
        }
    });
}

// ---- backward ---------------------------------------------------------------------------------------------------

// What both of the backward walks need of a channel: g = gradient of the result, times the slope where z <= 0, with
// z = (x - mean) scale + bias computed as forward did.
struct Channels {
    float mean[PIECE], scale[PIECE], bias[PIECE];
};

__device__ __forceinline__ void load_channels(Channels& c, const InstanceNormArgs& p, const Place& at) {
    const float* const moments = p.moments + 2ll * at.sample * p.C + at.channel;
    load_floats(c.scale, p.weight + at.channel, at.valid);
    load_floats(c.bias, moments + p.C, at.valid);
#pragma unroll
    for (int n = 0; n < PIECE; n++) c.scale[n] *= c.bias[n];
    load_floats(c.mean, moments, at.valid);
    load_floats(c.bias, p.bias + at.channel, at.valid);
}

// The gradient behind the norm. centred: x - mean.
__device__ __forceinline__ float behind_norm(float gradient, float centred, float scale, float bias, float slope) {
    return fmaf(centred, scale, bias) > 0.f ? gradient : gradient * slope;
}

// Sums of the chunk in the thread's column.
__device__ __forceinline__ Sums chunk_sums(const InstanceNormArgs& p, const Place& at, Scratch& scratch) {
    float g[PIECE] = {}, product[PIECE] = {};
    if (at.valid > 0) {
        Channels c;
        load_channels(c, p, at);
        const int own = positions_of(at, at.row);
        const long long step = (long long)at.rows * p.C;
        for_groups<PAIR>(own, [&](int k, int exist) {
            Piece x[PAIR], gradient[PAIR];
#pragma unroll
            for (int i = 0; i < PAIR; i++) {
                x[i] = i < exist ? read<false>(p.x, at.at + (k + i) * step, at.valid) : Piece{};
                gradient[i] = i < exist ? read<false>(p.gradient, at.at + (k + i) * step, at.valid) : Piece{};
            }
#pragma unroll
            for (int i = 0; i < PAIR; i++)
#pragma unroll
                for (int n = 0; n < PIECE; n++) {
                    const float centred = piece_value(x[i], n) - c.mean[n];
                    const float d = behind_norm(piece_value(gradient[i], n), centred, c.scale[n], c.bias[n], p.slope);
                    if (i < exist) g[n] += d, product[n] = fmaf(d, centred, product[n]);
                }
        });
    }
    spread(g, product, scratch);
    Sums mine = {0.f, 0.f};
    const int column = threadIdx.x % at.width;
    for (int row = threadIdx.x / at.width; row < at.rows; row += THREADS / at.width)
        mine = merge(mine, {scratch.first[row * at.width + column], scratch.second[row * at.width + column]});
    mine = total(mine, at.width, scratch.sums);
    if (at.column < p.C) mine.product *= __ldg(p.moments + (2ll * at.sample + 1) * p.C + at.column);
    return mine;
}

// Writes the gradient of x: scale (g - mean(g) - xhat mean(g xhat)). sums: of the whole sample in the thread's column.
__device__ __forceinline__ void gradient_chunk(const InstanceNormArgs& p, const Place& at, Sums sums, Scratch& scratch) {
    float constant[PIECE], factor[PIECE];
    collect(constant, factor, sums.g / p.positions, sums.product / p.positions, at, scratch);
    if (at.valid <= 0) return;
    Channels c;
    load_channels(c, p, at);
    {
        float deviation[PIECE];
        load_floats(deviation, p.moments + (2ll * at.sample + 1) * p.C + at.channel, at.valid);
#pragma unroll
        for (int n = 0; n < PIECE; n++) constant[n] *= c.scale[n], factor[n] *= c.scale[n] * deviation[n];
    }
    const int own = positions_of(at, at.row);
    const long long step = (long long)at.rows * p.C, end = at.at + (own - 1) * step;
    for_groups<PAIR>(own, [&](int k, int exist) {
        Piece x[PAIR], gradient[PAIR];
#pragma unroll
        for (int i = 0; i < PAIR; i++) {
            x[i] = i < exist ? read<true>(p.x, end - (k + i) * step, at.valid) : Piece{};
            gradient[i] = i < exist ? read<true>(p.gradient, end - (k + i) * step, at.valid) : Piece{};
        }
#pragma unroll
        for (int i = 0; i < PAIR; i++) {
            float f[PIECE];
#pragma unroll
            for (int n = 0; n < PIECE; n++) {
                const float centred = piece_value(x[i], n) - c.mean[n];
                const float d = behind_norm(piece_value(gradient[i], n), centred, c.scale[n], c.bias[n], p.slope);
                f[n] = fmaf(d, c.scale[n], -fmaf(centred, factor[n], constant[n]));
            }
            if (i < exist) store_piece(static_cast<Element*>(p.out) + end - (k + i) * step, f, at.valid);
        }
    });
}

// ---- partial results --------------------------------------------------------------------------------------------

__device__ __forceinline__ void write_part(const InstanceNormArgs& p, const Place& at, float first, float second) {
    if (threadIdx.x >= at.width || at.column >= p.C) return;
    float* const to = p.parts + 2ll * (at.sample * p.chunks + at.chunk) * p.C + at.column;
    to[0] = first, to[p.C] = second;
}

// Adds up the column's parts number `first` to `last`; make(part, a, b) is a part's value.
template <class T, class Make>
__device__ __forceinline__ T total_parts(
    const InstanceNormArgs& p, const Place& at, int first, int last, T* tree, const Make& make) {
    T mine = {};
    if (at.column < p.C) {
#pragma unroll 8
        for (int part = first + threadIdx.x / at.width; part < last; part += THREADS / at.width) {
            const float* const from = p.parts + 2ll * part * p.C + at.column;
            mine = merge(mine, make(part, __ldg(from), __ldg(from + p.C)));
        }
    }
    return total(mine, at.width, tree);
}

// Gradients of weight and bias for one slice of the channels: the sums of all samples.
__device__ __forceinline__ void sum_parameters(const InstanceNormArgs& p, int slice, Scratch& scratch) {
    const Place at = place_of(p, slice);
    const Sums sums = total_parts(
        p, at, 0, p.samples * p.chunks, scratch.sums, [](int, float g, float product) { return Sums{g, product}; });
    if (threadIdx.x < at.width && at.column < p.C)
        p.parameters[at.column] = sums.product, p.parameters[p.C + at.column] = sums.g;
}

#define KERNEL(name, blocks)                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, blocks) \
        instance_norm_##name(const __grid_constant__ InstanceNormArgs p)

// (samples, chunks, slices) blocks
KERNEL(statistics, 4) {
    __shared__ Scratch scratch;
    const Place at = place_of(p, blockIdx.x);
    const Moments moments = chunk_moments(p, at, scratch);
    write_part(p, at, moments.mean, moments.squares);
}

// (samples, chunks, slices) blocks
KERNEL(normalise, 4) {
    __shared__ Scratch scratch;
    const Place at = place_of(p, blockIdx.x);
    const int first = at.sample * p.chunks;
    const auto make = [&](int part, float mean, float squares) {
        return Moments{float(chunk_positions(p, part - first)), mean, squares};
    };
    normalise_chunk(p, at, total_parts(p, at, first, first + p.chunks, scratch.moments, make), scratch);
}

// (samples, slices) blocks
KERNEL(forward_whole, 3) {
    __shared__ Scratch scratch;
    const Place at = place_of(p, blockIdx.x);
    normalise_chunk(p, at, chunk_moments(p, at, scratch), scratch);
}

// (samples, chunks, slices) blocks
KERNEL(gradient_sums, 3) {
    __shared__ Scratch scratch;
    const Place at = place_of(p, blockIdx.x);
    const Sums sums = chunk_sums(p, at, scratch);
    write_part(p, at, sums.g, sums.product);
}

// (samples, chunks, slices) blocks and, before them, one block per slice for the gradients of weight and bias
KERNEL(gradient_input, 3) {
    __shared__ Scratch scratch;
    if (blockIdx.x < p.slices) return sum_parameters(p, blockIdx.x, scratch);
    const Place at = place_of(p, blockIdx.x - p.slices);
    const int first = at.sample * p.chunks;
    const auto make = [](int, float g, float product) { return Sums{g, product}; };
    gradient_chunk(p, at, total_parts(p, at, first, first + p.chunks, scratch.sums, make), scratch);
}

// (samples, slices) blocks
KERNEL(backward_whole, 3) {
    __shared__ Scratch scratch;
    const Place at = place_of(p, blockIdx.x);
    const Sums sums = chunk_sums(p, at, scratch);
    write_part(p, at, sums.g, sums.product);
    gradient_chunk(p, at, sums, scratch);
}

// one block per slice
KERNEL(gradient_parameters, 3) {
    __shared__ Scratch scratch;
    sum_parameters(p, blockIdx.x, scratch);
}
