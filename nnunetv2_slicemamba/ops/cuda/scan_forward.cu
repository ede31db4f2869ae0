// Forward selective scan: y of every direction, then their sum.
//
// Long sequences are cut into chunks: forward_chunk computes every chunk's end state from zero and its sum of delta,
// forward_carry chains them, forward_scan starts every chunk from its true state.
#include "reductions.cuh"
#include "walk.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, FORWARD_BLOCKS) forward_scan(const __grid_constant__ ScanArgs p) {
    walk_chunk<OUTPUT>(p);
}

extern "C" __global__ void __launch_bounds__(THREADS, FORWARD_BLOCKS) forward_chunk(const __grid_constant__ ScanArgs p) {
    walk_chunk<CHUNK>(p);
}

extern "C" __global__ void __launch_bounds__(THREADS) forward_carry(const __grid_constant__ ScanArgs p) {
    carry_chunks(p, false);
}

extern "C" __global__ void __launch_bounds__(2 * THREADS) forward_combine(const __grid_constant__ ScanArgs p) {
    combine(p, p.x, (long long)blockIdx.x * blockDim.x + threadIdx.x);
}

// Step sizes of low rank: out[t, k, e] = sum over r of weight[k, e, r] low[t, k, r].
struct ExpandArgs {
    const void* low;
    const float* weight;  // (K, E, R)
    void* out;            // (batch, L, K, E)
    long long low_batch;
    int low_token, low_direction;
    int batch, L, E, K, R, channel_blocks;
};

constexpr int EXPAND_PASSES = 4, EXPAND_TOKENS = EXPAND_PASSES * PASS_ROWS, EXPAND_RANKS = 32;

// A block computes EXPAND_TOKENS tokens of 64 channels of one direction, EXPAND_RANKS ranks at a time.
extern "C" __global__ void __launch_bounds__(THREADS) forward_expand(const __grid_constant__ ExpandArgs p) {
    __shared__ __align__(16) float weight[EXPAND_RANKS][BLOCK_CHANNELS];
    __shared__ float low[EXPAND_TOKENS][EXPAND_RANKS + 1];
    const int block = blockIdx.x % p.channel_blocks, k = blockIdx.x / p.channel_blocks % p.K;
    const long long tokens = (long long)p.batch * p.L, first = (long long)(blockIdx.x / p.channel_blocks / p.K) * EXPAND_TOKENS;
    const int piece = threadIdx.x % ROW_THREADS, row = threadIdx.x / ROW_THREADS;
    const int channel = block * BLOCK_CHANNELS + piece * PIECE;
    float sum[EXPAND_PASSES][PIECE] = {};
    for (int r0 = 0; r0 < p.R; r0 += EXPAND_RANKS) {
        const int ranks = min(EXPAND_RANKS, p.R - r0);
        __syncthreads();
        for (int m = threadIdx.x; m < BLOCK_CHANNELS * ranks; m += THREADS) {
            const int c = m / ranks, r = m - c * ranks, e = block * BLOCK_CHANNELS + c;
            weight[r][c] = e < p.E ? __ldg(p.weight + ((long long)k * p.E + e) * p.R + r0 + r) : 0.f;
        }
        for (int m = threadIdx.x; m < EXPAND_TOKENS * ranks; m += THREADS) {
            const int t = m / ranks, r = m - t * ranks;
            const long long token = min(first + t, tokens - 1), b = token / p.L, l = token - b * p.L;
            union { Pair pair; Element values[2]; } u;
            u.values[0] = __ldg(static_cast<const Element*>(p.low) + b * p.low_batch + l * p.low_token
                + (long long)k * p.low_direction + r0 + r);
            u.values[1] = Element(0);
            low[t][r] = to_floats(u.pair).x;
        }
        __syncthreads();
        for (int r = 0; r < ranks; r++) {
            float w[PIECE];
            load_vector(w, &weight[r][piece * PIECE]);
#pragma unroll
            for (int i = 0; i < EXPAND_PASSES; i++) {
                const float v = low[row + i * PASS_ROWS][r];
#pragma unroll
                for (int c = 0; c < PIECE; c++) sum[i][c] = fmaf(w[c], v, sum[i][c]);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < EXPAND_PASSES; i++) {
        const long long token = first + row + i * PASS_ROWS;
        if (token < tokens)
            store_piece(static_cast<Element*>(p.out) + (token * p.K + k) * p.E + channel, sum[i], p.E - channel);
    }
}
