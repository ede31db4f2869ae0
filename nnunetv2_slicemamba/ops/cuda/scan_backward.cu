// Backward selective scan: gradients of x, dt, B, C, A, D and the bias of delta.
//
// With g_t the gradient that reaches h_t, i.e. g_t = dy_t C_t + exp(delta_(t+1) A) g_(t+1):
//   dC_t = sum_e dy_t h_t          dB_t = sum_e g_t delta_t x_t        d(delta_t x_t) = sum_n g_t B_t
//   d(delta_t A) = g_t exp(delta_t A) h_(t-1)   which feeds ddelta and dA
// A block takes the stages of its chunk from the last to the first. Per stage it recomputes the states from the saved
// one in two levels: once through the stage, keeping a checkpoint every SUB tokens in shared memory, then SUB tokens at
// a time with states and decays in registers, walking back over them. Sums across blocks go through partial arrays
// that backward_finish adds in a fixed order: no atomics, so repeats are bit-identical.
#include "walk.cuh"

constexpr int SUB = STATES <= 16 ? 4 : 2;
constexpr int SUBS = STAGE / SUB;
constexpr int LANE_FLOATS = LANE_CHANNELS * LANE_STATES;

struct __align__(16) BackwardStage {
    float4 channels[STAGE][BLOCK_CHANNELS / 2];  // (delta, delta x); later (delta, gradient of delta x); swizzled
    float dy[STAGE][BLOCK_CHANNELS];             // dy; later the part of ddelta that comes through exp(delta A) / ln 2
    float states[STAGE][2 * STATES];             // B, then C
    float checkpoints[WARPS][SUBS][32 * LANE_FLOATS];  // states; later the warp's sums [SUB][2 STATES] of dB and dC
    int rows[STAGE];
};
static_assert(SUB * 2 * STATES <= 32 * LANE_FLOATS, "the sums of a warp must fit into its checkpoint");

// Sums COUNT values over the 8 lanes of equal `part`; lane `group` ends with the values group * COUNT / 8 and on, or,
// if COUNT is below 8, with value group / (8 / COUNT).
template <int COUNT> __device__ __forceinline__ void sum_over_channels(float (&v)[COUNT], int group) {
    constexpr int A = COUNT > 1 ? COUNT / 2 : 1, B = A > 1 ? A / 2 : 1, C = B > 1 ? B / 2 : 1;
#pragma unroll
    for (int i = 0; i < A; i++) v[i] = COUNT > 1 ? fold(v[i], v[(i + A) % COUNT], group & 4, 16) : v[i] + exchange(v[i], 16);
#pragma unroll
    for (int i = 0; i < B; i++) v[i] = A > 1 ? fold(v[i], v[(i + B) % COUNT], group & 2, 8) : v[i] + exchange(v[i], 8);
#pragma unroll
    for (int i = 0; i < C; i++) v[i] = B > 1 ? fold(v[i], v[(i + C) % COUNT], group & 1, 4) : v[i] + exchange(v[i], 4);
}

struct LaneGradients {
    LaneStates arriving, rates;  // gradient that reaches the next token's state from later ones; sum of dA
};

// Walks back over the SUB tokens from `first` on, whose states start from the checkpoint.
__device__ __forceinline__ void walk_back(BackwardStage& stage, const Place& at, int sub, const LaneStates& a, LaneGradients& grad) {
    const int word = swizzle(at.warp * (WARP_CHANNELS / 2) + at.group);
    float* const checkpoint = stage.checkpoints[at.warp][sub];
    LaneStates h[SUB + 1], decay[SUB];
#pragma unroll
    for (int c = 0; c < LANE_CHANNELS; c++) load_vector(h[0][c], checkpoint + (c * 32 + at.lane) * LANE_STATES);
#pragma unroll
    for (int u = 0; u < SUB; u++) {
        const int t = sub * SUB + u;
        float B[LANE_STATES];
        load_vector(B, &stage.states[t][at.part * LANE_STATES]);
        const float4 v = stage.channels[t][word];
        const float delta[LANE_CHANNELS] = {v.x, v.z}, input[LANE_CHANNELS] = {v.y, v.w};
#pragma unroll
        for (int c = 0; c < LANE_CHANNELS; c++)
#pragma unroll
            for (int n = 0; n < LANE_STATES; n++) {
                decay[u][c][n] = exp2_fast(delta[c] * a[c][n]);
                h[u + 1][c][n] = fmaf(decay[u][c][n], h[u][c][n], input[c] * B[n]);
            }
    }
    __syncwarp();  // every lane has read the checkpoint that the sums replace
#pragma unroll
    for (int u = SUB - 1; u >= 0; u--) {
        const int t = sub * SUB + u;
        float B[LANE_STATES], C[LANE_STATES], sums[2 * LANE_STATES] = {};
        load_vector(B, &stage.states[t][at.part * LANE_STATES]);
        load_vector(C, &stage.states[t][STATES + at.part * LANE_STATES]);
        const float4 v = stage.channels[t][word];
        float* const dy_at = &stage.dy[t][at.warp * WARP_CHANNELS + at.group * LANE_CHANNELS];
        const float2 w = *reinterpret_cast<const float2*>(dy_at);
        const float delta[LANE_CHANNELS] = {v.x, v.z}, input[LANE_CHANNELS] = {v.y, v.w}, dy[LANE_CHANNELS] = {w.x, w.y};
        float d_input[LANE_CHANNELS] = {}, d_delta[LANE_CHANNELS] = {};
#pragma unroll
        for (int c = 0; c < LANE_CHANNELS; c++)
#pragma unroll
            for (int n = 0; n < LANE_STATES; n++) {
                const float g = fmaf(dy[c], C[n], grad.arriving[c][n]);
                sums[LANE_STATES + n] = fmaf(dy[c], h[u + 1][c][n], sums[LANE_STATES + n]);
                sums[n] = fmaf(g, input[c], sums[n]);
                d_input[c] = fmaf(g, B[n], d_input[c]);
                const float leaving = g * decay[u][c][n], d_exponent = leaving * h[u][c][n];
                d_delta[c] = fmaf(d_exponent, a[c][n], d_delta[c]);
                grad.rates[c][n] = fmaf(d_exponent, delta[c], grad.rates[c][n]);
                grad.arriving[c][n] = leaving;
            }
        sum_over_channels(sums, at.group);
        constexpr int OWN = LANE_STATES >= 4 ? LANE_STATES / 4 : 1;  // sums that a lane ends with
        constexpr int SHARE = 4 / LANE_STATES > 1 ? 4 / LANE_STATES : 1;  // lanes that end with the same one
        if (at.group % SHARE == 0) {
            const int value = at.group / SHARE * OWN, matrix = value / LANE_STATES;
            float* to = checkpoint + u * 2 * STATES + matrix * STATES + at.part * LANE_STATES + value % LANE_STATES;
#pragma unroll
            for (int i = 0; i < OWN; i++) to[i] = sums[i];
        }
        // over the states: lanes 0, 1 end with d_input of channel 0, 1, lanes 2, 3 with d_delta
        const float first = fold(d_input[0], d_delta[0], at.part & 2, 2), second = fold(d_input[1], d_delta[1], at.part & 2, 2);
        const float sum = fold(first, second, at.part & 1, 1);
        if (at.part & 2) dy_at[at.part & 1] = sum;
        else reinterpret_cast<float*>(&stage.channels[t][word])[(at.part & 1) * 2 + 1] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BACKWARD_BLOCKS) backward_scan(const __grid_constant__ ScanArgs p) {
    BackwardStage& stage = *reinterpret_cast<BackwardStage*>(shared);
    const Place at(p, p.chunks);
    const int first = at.chunk * p.chunk_stages, end = min(first + p.chunk_stages, p.stages);
    const long long bk = (long long)at.b * p.K + at.k, chunk_index = (long long)at.b * p.chunks + at.chunk;
    const int padded = p.channel_blocks * BLOCK_CHANNELS;

    LaneStates a;
    LaneGradients grad;
    load_rates(a, p, at);
#pragma unroll
    for (int c = 0; c < LANE_CHANNELS; c++)
#pragma unroll
        for (int n = 0; n < LANE_STATES; n++) grad.arriving[c][n] = grad.rates[c][n] = 0.f;
    if (p.chunks > 1) load_states(grad.arriving, p.chunk_state + at.state_offset(p, bk * p.chunks + at.chunk));

    const long long image = (long long)at.b * p.L * p.E + at.piece_channel;
    const Element* const x_rows = static_cast<const Element*>(p.x) + image;
    const Element* const dy_rows = static_cast<const Element*>(p.dy) + image;
    const Element* const dt_rows = static_cast<const Element*>(p.dt)
        + at.b * p.dt_batch + at.k * p.dt_direction + at.piece_channel;
    Element* const dx_rows = static_cast<Element*>(p.y) + bk * p.L * p.E + at.piece_channel;
    Element* const ddt_rows = static_cast<Element*>(p.ddt) + ((long long)at.b * p.L * p.K + at.k) * p.E + at.piece_channel;
    float* const state_parts = p.state_parts + (((long long)at.block * p.batch + at.b) * p.L * p.K + at.k) * 2 * STATES;
    StateRows<2> states(p, at, false);
    float bias_sum[PIECE] = {}, D_sum[PIECE] = {};

    for (int s = end - 1; s >= first; s--) {
        const int position = load_position(p, at, s);
        int rows[PASSES];
        Piece x[PASSES], dt[PASSES], dy[PASSES];
#pragma unroll
        for (int r = 0; r < PASSES; r++) {
            rows[r] = __shfl_sync(~0u, position, at.row + r * PASS_ROWS);
            const int valid = rows[r] < 0 ? 0 : at.piece_valid;
            x[r] = load_piece(x_rows + (long long)rows[r] * p.E, valid);
            dt[r] = load_piece(dt_rows + rows[r] * p.dt_token, valid);
            dy[r] = load_piece(dy_rows + (long long)rows[r] * p.E, valid);
        }
        states.load(position);
        LaneStates h;
        load_states(h, static_cast<const SavedState*>(p.states) + at.state_offset(p, bk * p.stages + s));
#pragma unroll
        for (int r = 0; r < PASSES; r++) {
            float delta[PIECE], input[PIECE], gradient[PIECE];
            unpack(dt[r], delta);
            unpack(x[r], input);
            unpack(dy[r], gradient);
            const int t = at.row + r * PASS_ROWS;
#pragma unroll
            for (int c = 0; c < PIECE; c++) {
                const float bias = p.bias && c < at.piece_valid ? p.bias[(long long)at.k * p.E + at.piece_channel + c] : 0.f;
                delta[c] = rows[r] < 0 ? 0.f : softplus(delta[c] + bias);
                if (at.k == 0) D_sum[c] = fmaf(input[c], gradient[c], D_sum[c]);  // equal for every direction
                input[c] *= delta[c];
            }
#pragma unroll
            for (int w = 0; w < PIECE / 2; w++)
                stage.channels[t][swizzle(at.piece * (PIECE / 2) + w)] =
                    make_float4(delta[2 * w], input[2 * w], delta[2 * w + 1], input[2 * w + 1]);
            store_vector(&stage.dy[t][PIECE * at.piece], gradient);
            if (at.piece == 0) stage.rows[t] = rows[r];
        }
        states.put(stage.states);
        __syncthreads();

        const int word = swizzle(at.warp * (WARP_CHANNELS / 2) + at.group);
#pragma unroll 1
        for (int sub = 0; sub < SUBS; sub++) {
#pragma unroll
            for (int c = 0; c < LANE_CHANNELS; c++)
                store_vector(stage.checkpoints[at.warp][sub] + (c * 32 + at.lane) * LANE_STATES, h[c]);
            if (sub == SUBS - 1) break;
#pragma unroll
            for (int u = 0; u < SUB; u++) {
                const int t = sub * SUB + u;
                float B[LANE_STATES];
                load_vector(B, &stage.states[t][at.part * LANE_STATES]);
                const float4 v = stage.channels[t][word];
                const float delta[LANE_CHANNELS] = {v.x, v.z}, input[LANE_CHANNELS] = {v.y, v.w};
#pragma unroll
                for (int c = 0; c < LANE_CHANNELS; c++)
#pragma unroll
                    for (int n = 0; n < LANE_STATES; n++)
                        h[c][n] = fmaf(exp2_fast(delta[c] * a[c][n]), h[c][n], input[c] * B[n]);
            }
        }
#pragma unroll 1
        for (int sub = SUBS - 1; sub >= 0; sub--) {
            walk_back(stage, at, sub, a, grad);
            __syncwarp();
        }
        __syncthreads();

#pragma unroll
        for (int r = 0; r < PASSES; r++) {
            const int t = at.row + r * PASS_ROWS, valid = rows[r] < 0 ? 0 : at.piece_valid;
            float input[PIECE], through_decay[PIECE], ddt[PIECE], dx[PIECE];
            // read again: held over the stage, x would cost the registers that a third block needs
            unpack(load_piece(x_rows + (long long)rows[r] * p.E, valid), input);
            load_vector(through_decay, &stage.dy[t][PIECE * at.piece]);
#pragma unroll
            for (int w = 0; w < PIECE / 2; w++) {
                const float4 v = stage.channels[t][swizzle(at.piece * (PIECE / 2) + w)];
                const float delta[2] = {v.x, v.z}, d_input[2] = {v.y, v.w};
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const int c = 2 * w + i;
                    ddt[c] = (through_decay[c] * LN2 + input[c] * d_input[i]) * softplus_slope(delta[i]);
                    dx[c] = delta[i] * d_input[i];
                    bias_sum[c] += ddt[c];
                }
            }
            store_piece(ddt_rows + (long long)rows[r] * p.K * p.E, ddt, valid);
            store_piece(dx_rows + (long long)rows[r] * p.E, dx, valid);
        }
        for (int m = threadIdx.x; m < STAGE * STATES / 2; m += THREADS) {
            const int t = m / (STATES / 2), column = m % (STATES / 2) * 4;
            float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
            for (int w = 0; w < WARPS; w++) {
                const float4 v = *reinterpret_cast<const float4*>(
                    &stage.checkpoints[w][t / SUB][t % SUB * 2 * STATES + column]);
                sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
            }
            if (stage.rows[t] >= 0)
                *reinterpret_cast<float4*>(state_parts + (long long)stage.rows[t] * p.K * 2 * STATES + column) = sum;
        }
        __syncthreads();
    }

    // sums over the rows that the block's threads moved
    float* const scratch = reinterpret_cast<float*>(shared);
    float* const mine = scratch + at.row * BLOCK_CHANNELS + PIECE * at.piece;
    store_vector(mine, bias_sum);
    store_vector(mine + PASS_ROWS * BLOCK_CHANNELS, D_sum);
    __syncthreads();
    const int which = threadIdx.x / BLOCK_CHANNELS, e = threadIdx.x % BLOCK_CHANNELS;
    static_assert(THREADS == 2 * BLOCK_CHANNELS, "one thread per channel and sum");
    float sum = 0.f;
    for (int r = 0; r < PASS_ROWS; r++) sum += scratch[(which * PASS_ROWS + r) * BLOCK_CHANNELS + e];
    if (which == 0) p.bias_parts[(chunk_index * p.K + at.k) * padded + at.block * BLOCK_CHANNELS + e] = sum;
    else if (at.k == 0) p.D_parts[chunk_index * padded + at.block * BLOCK_CHANNELS + e] = sum;
    store_states(p.A_parts + at.state_offset(p, chunk_index * p.K + at.k), grad.rates);
}

extern "C" __global__ void __launch_bounds__(THREADS, FORWARD_BLOCKS) backward_chunk(const __grid_constant__ ScanArgs p) {
    walk_chunk<REVERSE_CHUNK>(p);
}

extern "C" __global__ void __launch_bounds__(THREADS) backward_carry(const __grid_constant__ ScanArgs p) {
    carry_chunks(p, true);
}

constexpr int FINISH_THREADS = 256;
constexpr int SLICES = FINISH_THREADS / 32;

// Sums 32 consecutive outputs of (dA, dbias, dD) over batch and chunks: 8 slices of the sum side by side, then theirs.
__device__ __forceinline__ void finish_parameters(const ScanArgs& p) {
    __shared__ float slices[SLICES][32];
    const long long padded = (long long)p.channel_blocks * BLOCK_CHANNELS, n_bias = p.K * padded, n_A = n_bias * STATES;
    const int lane = threadIdx.x & 31, slice = threadIdx.x >> 5;
    long long index = (long long)blockIdx.x * 32 + lane;
    const float* parts;
    long long step;  // n_A and n_bias are multiples of 32, so a warp never straddles two arrays
    int kind = 0;
    if (index < n_A) parts = p.A_parts, step = n_A;
    else if ((index -= n_A) < n_bias) parts = p.bias_parts, step = n_bias, kind = 1;
    else index -= n_bias, parts = p.D_parts, step = padded, kind = 2;
    float sum = 0.f;
    if (index < step) {
#pragma unroll 4
        for (int i = slice; i < p.batch * p.chunks; i += SLICES) sum += parts[i * step + index];
    }
    slices[slice][lane] = sum;
    __syncthreads();
    if (slice > 0 || index >= step) return;
    sum = 0.f;
#pragma unroll
    for (int i = 0; i < SLICES; i++) sum += slices[i][lane];
    if (kind == 0) {  // undo the lane order of state_offset()
        const int n = index % LANE_STATES, c = index / LANE_STATES % LANE_CHANNELS, owner = index / LANE_FLOATS % 32;
        const long long unit = index / LANE_FLOATS / 32, k = unit / (p.channel_blocks * WARPS);
        const int e = unit % (p.channel_blocks * WARPS) * WARP_CHANNELS + (owner >> 2) * LANE_CHANNELS + c;
        const int state = (owner & 3) * LANE_STATES + n;
        if (e < p.E && state < p.N) p.dA[(k * p.E + e) * p.N + state] = sum;
    } else if (kind == 1) {
        const long long k = index / padded, e = index % padded;
        if (e < p.E && p.dbias) p.dbias[k * p.E + e] = sum;
    } else if (index < p.E) {
        for (int k = 0; k < p.K; k++) p.dD[k * p.E + index] = sum;
    }
}

// dB and dC of four states: sum over the channel blocks.
__device__ __forceinline__ void finish_states(const ScanArgs& p, long long index) {
    const long long rows = (long long)p.batch * p.L * p.K, row = index / (STATES / 2);
    const int column = index % (STATES / 2) * 4, matrix = column / STATES, state = column % STATES;
    if (row >= rows || state >= p.N) return;
    const float* parts = p.state_parts + row * 2 * STATES + column;
    float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 4
    for (int e = 0; e < p.channel_blocks; e++) {
        const float4 v = *reinterpret_cast<const float4*>(parts + e * rows * 2 * STATES);
        sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
    }
    Element* const out = static_cast<Element*>(matrix ? p.dC : p.dB) + row * p.N + state;
    union { Pair pairs[2]; Element values[4]; } u;
    u.pairs[0] = from_floats(sum.x, sum.y), u.pairs[1] = from_floats(sum.z, sum.w);
    if (p.N % 4 == 0) {
        reinterpret_cast<Pair*>(out)[0] = u.pairs[0], reinterpret_cast<Pair*>(out)[1] = u.pairs[1];
    } else {
        for (int i = 0; i < 4; i++)
            if (state + i < p.N) out[i] = u.values[i];
    }
}

// The three reductions over partial results in one launch.
extern "C" __global__ void __launch_bounds__(FINISH_THREADS) backward_finish(const __grid_constant__ ScanArgs p) {
    const int block = blockIdx.x;
    if (block < p.param_blocks) return finish_parameters(p);
    if (block < p.param_blocks + p.state_blocks)
        return finish_states(p, (long long)(block - p.param_blocks) * FINISH_THREADS + threadIdx.x);
    combine(p, p.dy, (long long)(block - p.param_blocks - p.state_blocks) * FINISH_THREADS + threadIdx.x);
}
