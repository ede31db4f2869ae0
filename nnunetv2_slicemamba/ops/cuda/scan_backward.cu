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
// Half of the lanes (group & 4) keep the two halves of their states in swapped order, so that the first step of the
// sum over channels always sends the second half and keeps the first, without selecting. B and C have a copy in that
// order. With one state per lane there is nothing to swap.
constexpr bool SWAPS = LANE_STATES > 1;
constexpr int HALF = SWAPS ? LANE_STATES / 2 : 1;
constexpr int COPIES = SWAPS ? 2 : 1;
constexpr int OWN = HALF > 1 ? HALF / 2 : 1;  // sums that a lane ends with

struct __align__(16) BackwardStage {
    float4 channels[STAGE][BLOCK_CHANNELS / 2];        // (delta, delta x); later (delta, gradient of delta x); swizzled
    float dy[STAGE][BLOCK_CHANNELS];                   // dy; later ddelta / ln 2 as far as it comes through exp(delta A)
    float states[STAGE][2][COPIES][STATES];            // B and C, each natural and swapped
    float checkpoints[WARPS][SUBS][32 * LANE_VALUES];  // states; later the warp's sums [SUB][2][STATES] of dB and dC
    float totals[2][PASS_ROWS][BLOCK_CHANNELS];        // over the stages: every thread's sums of ddelta, of x dy
    float bias[BLOCK_CHANNELS];
    int rows[STAGE];
};
static_assert(sizeof(BackwardStage) == SHARED_BACKWARD, "the host gives another size");
static_assert(SUB * 2 * STATES <= 32 * LANE_VALUES, "the sums of a warp must fit into its checkpoint");

__device__ __forceinline__ void swap_halves(LaneStates& h, bool swapped) {
#pragma unroll
    for (int c = 0; c < LANE_CHANNELS; c++)
#pragma unroll
        for (int n = 0; n < (SWAPS ? HALF : 0); n++) {
            const float low = h[c][n], high = h[c][n + HALF];
            h[c][n] = swapped ? high : low, h[c][n + HALF] = swapped ? low : high;
        }
}

// Sums over the 8 lanes of equal `part`. sums: dB and dC of the lane's states. Lane `group` ends with OWN sums of
// matrix (group >> 1) & 1, from state own_state(group) of the lane's states on; lanes that differ in duplicate() bits
// end with the same.
__device__ __forceinline__ void sum_over_channels(float (&sums)[2][LANE_STATES], int group, float (&own)[HALF]) {
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < HALF; n++) sums[m][n] += exchange(sums[m][SWAPS ? n + HALF : n], 16);
#pragma unroll
    for (int n = 0; n < HALF; n++) own[n] = fold(sums[0][n], sums[1][n], group & 2, 8);
#pragma unroll
    for (int n = 0; n < OWN; n++) own[n] = HALF > 1 ? fold(own[n], own[(n + OWN) % HALF], group & 1, 4) : own[n] + exchange(own[n], 4);
}
__device__ __forceinline__ int own_state(int group) {
    return (SWAPS && group & 4 ? HALF : 0) + (HALF > 1 && group & 1 ? OWN : 0);
}
__device__ __forceinline__ bool duplicate(int group) { return (!SWAPS && group & 4) || (HALF == 1 && group & 1); }

// What a lane works with all the time: its places in shared memory at the stage's first token, its rates and sums.
struct Lane {
    float4* channels;
    float* dy;
    const float* B;
    const float* C;
    float* checkpoints;
    float* sums;
    int group, part;
    LaneStates a;
    LaneStates arriving;  // gradient that reaches the state from later tokens
    LaneStates dA;

    __device__ __forceinline__ Lane(BackwardStage& stage, const Place& at) : group(at.group), part(at.part) {
        channels = &stage.channels[0][swizzle(at.warp * (WARP_CHANNELS / 2) + at.group)];
        dy = &stage.dy[0][at.warp * WARP_CHANNELS + at.group * LANE_CHANNELS];
        const int copy = SWAPS && at.group & 4 ? 1 : 0;
        B = &stage.states[0][0][copy][at.part * LANE_STATES], C = B + COPIES * STATES;
        checkpoints = &stage.checkpoints[at.warp][0][at.lane * LANE_STATES];
        sums = &stage.checkpoints[at.warp][0][(at.group >> 1 & 1) * STATES + at.part * LANE_STATES + own_state(at.group)];
    }
};
constexpr int CHANNEL_STEP = BLOCK_CHANNELS / 2, STATE_STEP = 2 * COPIES * STATES;  // from token to token
constexpr int CHECKPOINT_STEP = 32 * LANE_VALUES;                                  // from sub-stage to sub-stage

__device__ __forceinline__ void save_checkpoint(const Lane& lane, int sub, const LaneStates& h) {
#pragma unroll
    for (int c = 0; c < LANE_CHANNELS; c++)
        store_vector(lane.checkpoints + sub * CHECKPOINT_STEP + c * 32 * LANE_STATES, h[c]);
}

// to += a b
__device__ __forceinline__ void add_products(float* to, const float (&a)[PIECE], const float (&b)[PIECE]) {
    float sum[PIECE];
    load_vector(sum, to);
#pragma unroll
    for (int c = 0; c < PIECE; c++) sum[c] = fmaf(a[c], b[c], sum[c]);
    store_vector(to, sum);
}

// One token forward: decay = exp(delta A), next = decay h + delta x B. `next` may be h.
__device__ __forceinline__ void advance(const Lane& lane, int t, const LaneStates& h, LaneStates& next, LaneStates& decay) {
    float B[LANE_STATES];
    load_vector(B, lane.B + t * STATE_STEP);
    const float4 v = lane.channels[t * CHANNEL_STEP];
    const float delta[LANE_CHANNELS] = {v.x, v.z}, input[LANE_CHANNELS] = {v.y, v.w};
#pragma unroll
    for (int c = 0; c < LANE_CHANNELS; c++)
#pragma unroll
        for (int n = 0; n < LANE_STATES; n++) {
            decay[c][n] = exp2_fast(delta[c] * lane.a[c][n]);
            next[c][n] = fmaf(decay[c][n], h[c][n], input[c] * B[n]);
        }
}

// Walks back over the SUB tokens of a sub-stage, whose states start from its checkpoint.
__device__ __forceinline__ void walk_back(Lane& lane, int sub) {
    LaneStates h[SUB + 1], decay[SUB];
#pragma unroll
    for (int c = 0; c < LANE_CHANNELS; c++)
        load_vector(h[0][c], lane.checkpoints + sub * CHECKPOINT_STEP + c * 32 * LANE_STATES);
#pragma unroll
    for (int u = 0; u < SUB; u++) advance(lane, sub * SUB + u, h[u], h[u + 1], decay[u]);
    __syncwarp();  // every lane has read the checkpoint that the sums replace
    float over_states[SUB];
#pragma unroll
    for (int u = SUB - 1; u >= 0; u--) {
        const int t = sub * SUB + u;
        float B[LANE_STATES], C[LANE_STATES], sums[2][LANE_STATES] = {}, own[HALF];
        load_vector(B, lane.B + t * STATE_STEP);
        load_vector(C, lane.C + t * STATE_STEP);
        const float4 v = lane.channels[t * CHANNEL_STEP];
        const float2 w = *reinterpret_cast<const float2*>(lane.dy + t * BLOCK_CHANNELS);
        const float delta[LANE_CHANNELS] = {v.x, v.z}, input[LANE_CHANNELS] = {v.y, v.w}, dy[LANE_CHANNELS] = {w.x, w.y};
        float d_input[LANE_CHANNELS] = {}, d_delta[LANE_CHANNELS] = {};
#pragma unroll
        for (int c = 0; c < LANE_CHANNELS; c++)
#pragma unroll
            for (int n = 0; n < LANE_STATES; n++) {
                const float g = fmaf(dy[c], C[n], lane.arriving[c][n]);
                sums[0][n] = fmaf(g, input[c], sums[0][n]);
                sums[1][n] = fmaf(dy[c], h[u + 1][c][n], sums[1][n]);
                d_input[c] = fmaf(g, B[n], d_input[c]);
                const float leaving = g * decay[u][c][n], d_exponent = leaving * h[u][c][n];
                d_delta[c] = fmaf(d_exponent, lane.a[c][n], d_delta[c]);
                lane.dA[c][n] = fmaf(d_exponent, delta[c], lane.dA[c][n]);
                lane.arriving[c][n] = leaving;
            }
        sum_over_channels(sums, lane.group, own);
        if (!duplicate(lane.group))
#pragma unroll
            for (int i = 0; i < OWN; i++) lane.sums[sub * CHECKPOINT_STEP + u * 2 * STATES + i] = own[i];
        // over the states: lanes 0, 1 end with d_input of channel 0, 1, lanes 2, 3 with d_delta
        const float first = fold(d_input[0], d_delta[0], lane.part & 2, 2);
        const float second = fold(d_input[1], d_delta[1], lane.part & 2, 2);
        over_states[u] = fold(first, second, lane.part & 1, 1);
    }
    __syncwarp();  // every lane has read what the gradients replace
#pragma unroll
    for (int u = 0; u < SUB; u++) {
        const int t = sub * SUB + u;
        if (lane.part & 2) lane.dy[t * BLOCK_CHANNELS + (lane.part & 1)] = over_states[u];
        else reinterpret_cast<float*>(lane.channels + t * CHANNEL_STEP)[(lane.part & 1) * 2 + 1] = over_states[u];
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BACKWARD_BLOCKS) backward_scan(const __grid_constant__ ScanArgs p) {
    BackwardStage& stage = *reinterpret_cast<BackwardStage*>(shared);
    const Place at(p, p.chunks);
    const int first = at.chunk * p.chunk_stages, end = min(first + p.chunk_stages, p.stages);
    const long long bk = (long long)at.b * p.K + at.k, chunk_index = (long long)at.b * p.chunks + at.chunk;
    const int padded = p.channel_blocks * BLOCK_CHANNELS;
    const bool swapped = at.group & 4;

    Lane lane(stage, at);
    load_rates(lane.a, p, at);
#pragma unroll
    for (int c = 0; c < LANE_CHANNELS; c++)
#pragma unroll
        for (int n = 0; n < LANE_STATES; n++) lane.arriving[c][n] = lane.dA[c][n] = 0.f;
    if (p.chunks > 1) load_states(lane.arriving, p.chunk_state + at.state_offset(p, bk * p.chunks + at.chunk));
    swap_halves(lane.a, swapped);
    swap_halves(lane.arriving, swapped);

    const long long image = (long long)at.b * p.L * p.E + at.piece_channel;
    const Element* const x_rows = static_cast<const Element*>(p.x) + image;
    const Element* const dy_rows = static_cast<const Element*>(p.dy) + image;
    const Element* const dt_rows = static_cast<const Element*>(p.dt)
        + at.b * p.dt_batch + (long long)at.k * p.dt_direction + at.piece_channel;
    Element* const dx_rows = static_cast<Element*>(p.y) + bk * p.L * p.E + at.piece_channel;
    Element* const ddt_rows = static_cast<Element*>(p.ddt) + ((long long)at.b * p.L * p.K + at.k) * p.E + at.piece_channel;
    float* const state_parts = p.state_parts + (((long long)at.block * p.batch + at.b) * p.L * p.K + at.k) * 2 * STATES;
    StateRows<2> states(p, at, false);
    float* const bias = stage.bias + PIECE * at.piece;
    float* const bias_total = stage.totals[0][at.row] + PIECE * at.piece;
    float* const D_total = stage.totals[1][at.row] + PIECE * at.piece;
#pragma unroll
    for (int c = 0; c < PIECE; c++) {
        const bool exists = p.bias && c < at.piece_valid;
        bias_total[c] = D_total[c] = 0.f;
        if (at.row == 0) bias[c] = exists ? p.bias[(long long)at.k * p.E + at.piece_channel + c] : 0.f;
    }
    __syncthreads();

    int rows[PASSES], position = load_position(p, at, end - 1);
    Piece x[PASSES], dt[PASSES], dy[PASSES];
    LaneStates h;
    auto fetch = [&](int s) {
#pragma unroll
        for (int r = 0; r < PASSES; r++) {
            rows[r] = __shfl_sync(~0u, position, at.row + r * PASS_ROWS);
            x[r] = load_row(x_rows, p.E, rows[r], at.piece_valid, 0u);
            dt[r] = load_row(dt_rows, p.dt_token, rows[r], at.piece_valid, MINUS_INFINITY);  // delta 0
            dy[r] = load_row(dy_rows, p.E, rows[r], at.piece_valid, 0u);
        }
        states.load(position);
        load_states(h, static_cast<const SavedState*>(p.states) + at.state_offset(p, bk * p.stages + s));
        position = s > first ? load_position(p, at, s - 1) : -1;
    };
    fetch(end - 1);

    for (int s = end - 1; s >= first; s--) {
#pragma unroll
        for (int r = 0; r < PASSES; r++) {
            float delta[PIECE], input[PIECE], gradient[PIECE], shift[PIECE];
            load_vector(shift, bias);
            unpack(dt[r], delta);
            unpack(x[r], input);
            unpack(dy[r], gradient);
            const int t = at.row + r * PASS_ROWS;
            if (at.k == 0) add_products(D_total, input, gradient);  // the gradient of D is the same for all directions
#pragma unroll
            for (int c = 0; c < PIECE; c++) {
                delta[c] = softplus(delta[c] + shift[c]);
                input[c] *= delta[c];
            }
#pragma unroll
            for (int w = 0; w < PIECE / 2; w++)
                stage.channels[t][swizzle(at.piece * (PIECE / 2) + w)] =
                    make_float4(delta[2 * w], input[2 * w], delta[2 * w + 1], input[2 * w + 1]);
            store_vector(&stage.dy[t][PIECE * at.piece], gradient);
            if (at.piece == 0) stage.rows[t] = rows[r];
        }
        states.put([&](int t, int matrix, int state, float2 v) {
            *reinterpret_cast<float2*>(&stage.states[t][matrix][0][state]) = v;
            if (HALF > 1) *reinterpret_cast<float2*>(&stage.states[t][matrix][COPIES - 1][state ^ HALF]) = v;
            else if (SWAPS) *reinterpret_cast<float2*>(&stage.states[t][matrix][COPIES - 1][state]) = make_float2(v.y, v.x);
        });
        __syncthreads();

        swap_halves(h, swapped);
#pragma unroll 1
        for (int sub = 0; sub < SUBS - 1; sub++) {
            save_checkpoint(lane, sub, h);
#pragma unroll
            for (int u = 0; u < SUB; u++) {
                LaneStates decay;
                advance(lane, sub * SUB + u, h, h, decay);
            }
        }
        save_checkpoint(lane, SUBS - 1, h);
#pragma unroll 1
        for (int sub = SUBS - 1; sub >= 0; sub--) walk_back(lane, sub);
        // x again: held over the stage, it would cost the registers that a third block needs
        Piece x_again[PASSES];
        int done[PASSES];
#pragma unroll
        for (int r = 0; r < PASSES; r++) {
            done[r] = stage.rows[at.row + r * PASS_ROWS];
            x_again[r] = load_row(x_rows, p.E, done[r], at.piece_valid, 0u);
        }
        __syncthreads();
        if (s > first) fetch(s - 1);  // arrives during the epilogue, which has registers to spare

#pragma unroll
        for (int r = 0; r < PASSES; r++) {
            const int t = at.row + r * PASS_ROWS, valid = done[r] < 0 ? 0 : at.piece_valid;
            float input[PIECE], through_decay[PIECE], ddt[PIECE], dx[PIECE];
            unpack(x_again[r], input);
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
                }
            }
            float total[PIECE];
            load_vector(total, bias_total);
#pragma unroll
            for (int c = 0; c < PIECE; c++) total[c] += ddt[c];
            store_vector(bias_total, total);
            store_piece(ddt_rows + (long long)done[r] * (p.K * p.E), ddt, valid);
            store_piece(dx_rows + (long long)done[r] * p.E, dx, valid);
        }
#pragma unroll
        for (int i = 0; i < (STAGE * STATES / 2 + THREADS - 1) / THREADS; i++) {
            const int m = threadIdx.x + i * THREADS;
            if (STAGE * STATES / 2 % THREADS && m >= STAGE * STATES / 2) break;
            const int t = m / (STATES / 2), column = m % (STATES / 2) * 4;
            float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
            for (int w = 0; w < WARPS; w++) {
                const float4 v = *reinterpret_cast<const float4*>(
                    &stage.checkpoints[w][t / SUB][t % SUB * 2 * STATES + column]);
                sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
            }
            if (stage.rows[t] >= 0)
                *reinterpret_cast<float4*>(state_parts + (long long)stage.rows[t] * (p.K * 2 * STATES) + column) = sum;
        }
        __syncthreads();
    }

    const int which = threadIdx.x / BLOCK_CHANNELS, e = threadIdx.x % BLOCK_CHANNELS;
    static_assert(THREADS == 2 * BLOCK_CHANNELS, "one thread per channel and total");
    float sum = 0.f;
    for (int r = 0; r < PASS_ROWS; r++) sum += stage.totals[which][r][e];
    if (which == 0) p.bias_parts[(chunk_index * p.K + at.k) * padded + at.block * BLOCK_CHANNELS + e] = sum;
    else if (at.k == 0) p.D_parts[chunk_index * padded + at.block * BLOCK_CHANNELS + e] = sum;
    swap_halves(lane.dA, swapped);
    store_states(p.A_parts + at.state_offset(p, chunk_index * p.K + at.k), lane.dA);
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
        const int n = index % LANE_STATES, c = index / LANE_STATES % LANE_CHANNELS, owner = index / LANE_VALUES % 32;
        const long long unit = index / LANE_VALUES / 32, k = unit / (p.channel_blocks * WARPS);
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
