// LayerNorm over the channels of (tokens, C) rows and its gradients. eps is the network's, 1e-5.
//
// FLOAT_IN, FLOAT_OUT: 1 where x, or the result, is float32 though Element is a half type. Mean and deviation are
// computed again for the gradients, so nothing is kept but x. Rows are as short as 6 channels here, and PyTorch's
// kernels give each row a whole block of threads.
#include "rows.cuh"

// In the order in which layer_norm.py packs them.
struct LayerNormArgs {
    const void *x, *gradient;  // gradient: of the result, and like it
    const float *gamma, *beta;
    void *out;                 // the result, or the gradient of x
    float *parts;              // (blocks, 2, C) partial gradients of gamma and beta
    long long tokens;
    int C, lanes;
};

template <bool FLOAT>
__device__ __forceinline__ void load_channels(float (&f)[PIECE], const void* rows, long long offset, int valid) {
    if constexpr (FLOAT) {
        load_floats(f, static_cast<const float*>(rows) + offset, valid);
    } else {
        Piece piece = {};
        if (valid > 0) piece = load_piece(static_cast<const Element*>(rows) + offset, valid);
        unpack(piece, f, valid, 0.f);
    }
}

template <bool FLOAT>
__device__ __forceinline__ void store_channels(void* rows, long long offset, const float (&f)[PIECE], int valid) {
    if constexpr (FLOAT) {
        float* const at = static_cast<float*>(rows) + offset;
#if WIDE_ROWS
        if (valid > 0) store_vector(at, f);
#else
#pragma unroll
        for (int i = 0; i < PIECE; i++)
            if (i < valid) at[i] = f[i];
#endif
    } else {
        store_piece(static_cast<Element*>(rows) + offset, f, valid);
    }
}

// (mean, 1 / deviation) of a token whose missing channels are 0.
template <int PIECES>
__device__ __forceinline__ float2 moments_of(const float (&x)[PIECES][PIECE], int channel, const LayerNormArgs& p, float2* scratch) {
    float sum = 0.f, squares = 0.f;
#pragma unroll
    for (int i = 0; i < PIECES; i++)
#pragma unroll
        for (int n = 0; n < PIECE; n++) sum += x[i][n];
    const float mean = sum_lanes(make_float2(sum, 0.f), p.lanes, scratch).x / p.C;
#pragma unroll
    for (int i = 0; i < PIECES; i++)
#pragma unroll
        for (int n = 0; n < PIECE; n++) {
            const float difference = channel + i * p.lanes * PIECE + n < p.C ? x[i][n] - mean : 0.f;
            squares = fmaf(difference, difference, squares);
        }
    return make_float2(mean, rsqrtf(sum_lanes(make_float2(squares, 0.f), p.lanes, scratch).x / p.C + EPSILON));
}

template <int PIECES> __device__ __forceinline__ void forward(const LayerNormArgs& p) {
    __shared__ float2 scratch[THREADS / 32];
    const int channel = threadIdx.x % p.lanes * PIECE, step = p.lanes * PIECE;
    const long long token = (long long)blockIdx.x * (THREADS / p.lanes) + threadIdx.x / p.lanes;
    const bool live = token < p.tokens;
    float x[PIECES][PIECE];
#pragma unroll
    for (int i = 0; i < PIECES; i++)
        load_channels<FLOAT_IN>(x[i], p.x, token * p.C + channel + i * step, live ? p.C - channel - i * step : 0);
    const float2 moments = moments_of<PIECES>(x, channel, p, scratch);
    if (!live) return;
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        const int at = channel + i * step, valid = p.C - at;
        float gamma[PIECE], beta[PIECE];
        load_floats(gamma, p.gamma + at, valid);
        load_floats(beta, p.beta + at, valid);
#pragma unroll
        for (int n = 0; n < PIECE; n++) x[i][n] = fmaf((x[i][n] - moments.x) * moments.y, gamma[n], beta[n]);
        store_channels<FLOAT_OUT>(p.out, token * p.C + at, x[i], valid);
    }
}

// d gamma = sum d out xhat, d beta = sum d out, and, with d xhat = d out gamma and means over the channels,
// d x = (d xhat - mean(d xhat) - xhat mean(d xhat xhat)) / deviation. A block takes every gridDim.x-th set of tokens.
template <int PIECES> __device__ __forceinline__ void backward(const LayerNormArgs& p) {
    __shared__ float2 scratch[THREADS / 32];
    __shared__ __align__(16) float columns[THREADS * PIECE];
    const int channel = threadIdx.x % p.lanes * PIECE, step = p.lanes * PIECE;
    const long long tokens = THREADS / p.lanes;
    float dgamma[PIECES][PIECE] = {}, dbeta[PIECES][PIECE] = {};
    for (long long first = blockIdx.x * tokens; first < p.tokens; first += gridDim.x * tokens) {
        const long long token = first + threadIdx.x / p.lanes;
        const bool live = token < p.tokens;
        float x[PIECES][PIECE], g[PIECES][PIECE];
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            const int at = channel + i * step, valid = live ? p.C - at : 0;
            load_channels<FLOAT_IN>(x[i], p.x, token * p.C + at, valid);
            load_channels<FLOAT_OUT>(g[i], p.gradient, token * p.C + at, valid);
        }
        const float2 moments = moments_of<PIECES>(x, channel, p, scratch);
        float2 sums = make_float2(0.f, 0.f);
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            float gamma[PIECE];
            load_floats(gamma, p.gamma + channel + i * step, p.C - channel - i * step);
#pragma unroll
            for (int n = 0; n < PIECE; n++) {
                const float xhat = (x[i][n] - moments.x) * moments.y;
                dgamma[i][n] = fmaf(g[i][n], xhat, dgamma[i][n]), dbeta[i][n] += g[i][n];
                g[i][n] *= gamma[n], x[i][n] = xhat;
                sums.x += g[i][n], sums.y = fmaf(g[i][n], xhat, sums.y);
            }
        }
        sums = sum_lanes(sums, p.lanes, scratch);
        sums.x /= p.C, sums.y /= p.C;
        if (!live) continue;
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
#pragma unroll
            for (int n = 0; n < PIECE; n++) g[i][n] = (g[i][n] - sums.x - x[i][n] * sums.y) * moments.y;
            store_channels<FLOAT_IN>(p.out, token * p.C + channel + i * step, g[i], p.C - channel - i * step);
        }
    }
    float* const parts = p.parts + 2ll * blockIdx.x * p.C;
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        write_part(dgamma[i], parts, p.C, i, p.lanes, columns);
        write_part(dbeta[i], parts + p.C, p.C, i, p.lanes, columns);
    }
}

#define LAYER_NORM_KERNELS(PIECES)                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                            \
        layer_norm_forward_##PIECES(const __grid_constant__ LayerNormArgs p) { forward<PIECES>(p); }    \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                            \
        layer_norm_backward_##PIECES(const __grid_constant__ LayerNormArgs p) { backward<PIECES>(p); }
LAYER_NORM_KERNELS(1)
LAYER_NORM_KERNELS(2)
