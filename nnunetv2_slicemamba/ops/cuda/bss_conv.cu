// SiLU of the depthwise convolution, and its gradients.
//
// Traffic of (batch, L, E) elements: conv_forward and conv_grad_input read one and write one, conv_grad_output reads
// two and writes one. At batch 32, L 4096, E 192 in half precision that is 101, 101 and 151 MB: 34, 34 and 50 us at
// 3 TB/s.
#include "convolution.cuh"

// out = silu(conv(in) + bias)
extern "C" __global__ void __launch_bounds__(THREADS, 4) conv_forward(const __grid_constant__ ConvArgs p) {
    __shared__ __align__(16) TapWeights weights;
    const int block = blockIdx.x % p.channel_blocks;
    const Strip at(p, blockIdx.x / p.channel_blocks);
    const ChannelPiece c(p, block);
    load_weights<false>(weights, p, block);
    StripValues sum;
    float bias[PIECE];
    convolve(sum, weights, p, at, c);
    load_bias(bias, p, c);
#pragma unroll
    for (int t = 0; t < STRIP; t++) {
#pragma unroll
        for (int i = 0; i < PIECE; i++) sum[t][i] = silu(sum[t][i] + bias[i]);
        store_token(p, at, c, t, sum[t]);
    }
}

// out = conv transposed(in): the gradient of the convolution's input from that of its result
extern "C" __global__ void __launch_bounds__(THREADS, 4) conv_grad_input(const __grid_constant__ ConvArgs p) {
    __shared__ __align__(16) TapWeights weights;
    const int block = blockIdx.x % p.channel_blocks;
    const Strip at(p, blockIdx.x / p.channel_blocks);
    const ChannelPiece c(p, block);
    load_weights<true>(weights, p, block);
    StripValues sum;
    convolve(sum, weights, p, at, c);
#pragma unroll
    for (int t = 0; t < STRIP; t++) store_token(p, at, c, t, sum[t]);
}

// Adds one value per channel, summed over the warp's strips, to the warp's sums.
__device__ __forceinline__ void add_over_strips(float (&totals)[CHANNELS], const float (&f)[PIECE], int local) {
    static_assert(PIECE == 8 && CHANNEL_THREADS == 8, "four strips of a warp share eight channels");
    const bool upper = threadIdx.x & 16, odd = threadIdx.x & 8;
    float half[4], own[2];
#pragma unroll
    for (int i = 0; i < 4; i++) half[i] = fold(f[i], f[i + 4], upper, 16);
#pragma unroll
    for (int i = 0; i < 2; i++) own[i] = fold(half[i], half[i + 2], odd, 8);
    float* const to = totals + local + (upper ? 4 : 0) + (odd ? 2 : 0);
    to[0] += own[0], to[1] += own[1];
}

// out = gradient * silu'(conv(in) + bias), and with it the gradients of weight and bias. A block takes every
// (blocks / channel_blocks)th tile; each of its warps sums on its own, no two threads add to one place.
extern "C" __global__ void __launch_bounds__(THREADS, 4) conv_grad_output(const __grid_constant__ ConvArgs p) {
    __shared__ __align__(16) TapWeights weights;
    __shared__ float totals[WARPS][TAPS + 1][CHANNELS];
    const int block = blockIdx.x % p.channel_blocks, warp = threadIdx.x / 32;
    const u32 worker = blockIdx.x / p.channel_blocks, workers = gridDim.x / p.channel_blocks;
    const ChannelPiece c(p, block);
    float bias[PIECE];
    load_bias(bias, p, c);
    for (int i = threadIdx.x; i < WARPS * (TAPS + 1) * CHANNELS; i += THREADS) (&totals[0][0][0])[i] = 0.f;
    load_weights<false>(weights, p, block);

    for (u32 tile = worker; tile < p.tiles; tile += workers) {
        const Strip at(p, tile);
        StripValues grad;
        float sum[PIECE] = {};
        convolve(grad, weights, p, at, c);
#pragma unroll
        for (int t = 0; t < STRIP; t++) {
            const int valid = t < at.count ? c.valid : 0;
            const Element* const from = static_cast<const Element*>(p.gradient) + (at.token + t) * p.E + c.first;
            Piece piece = {};
            float gradient[PIECE];
            if (valid > 0) piece = load_piece(from, valid);
            unpack(piece, gradient, valid, 0.f);
#pragma unroll
            for (int i = 0; i < PIECE; i++) {
                grad[t][i] = valid > 0 ? gradient[i] * silu_derivative(grad[t][i] + bias[i]) : 0.f;
                sum[i] += grad[t][i];
            }
            store_token(p, at, c, t, grad[t]);
        }
        add_over_strips(totals[warp][TAPS], sum, c.local);
#pragma unroll 1
        for (int line = 0; line < LINES; line++) {
            const Neighbours tokens(p, at, c, line);
            float products[3][PIECE] = {};
#pragma unroll
            for (int i = 0; i < STRIP + 2; i++) {
                float f[PIECE];
                tokens.read(i, f);
#pragma unroll
                for (int tap = 0; tap < 3; tap++)
                    if (i - tap >= 0 && i - tap < STRIP)
#pragma unroll
                        for (int n = 0; n < PIECE; n++)
                            products[tap][n] = fmaf(grad[i - tap][n], f[n], products[tap][n]);
            }
#pragma unroll
            for (int tap = 0; tap < 3; tap++) add_over_strips(totals[warp][3 * line + tap], products[tap], c.local);
        }
    }

    __syncthreads();
    float* const parts = p.parts + (long long)worker * p.E * (TAPS + 1);
    for (int i = threadIdx.x; i < CHANNELS * (TAPS + 1); i += THREADS) {
        const int tap = i < CHANNELS * TAPS ? i % TAPS : TAPS;
        const int channel = i < CHANNELS * TAPS ? i / TAPS : i - CHANNELS * TAPS, e = block * CHANNELS + channel;
        if (e >= p.E) continue;
        float sum = 0.f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) sum += totals[w][tap][channel];
        parts[tap < TAPS ? (long long)e * TAPS + tap : (long long)p.E * TAPS + e] = sum;
    }
}
