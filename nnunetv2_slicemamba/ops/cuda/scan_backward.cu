// Backward selective scan: gradients of x, dt, B, C, A, D and the bias of delta.
//
// With g_t the gradient that reaches h_t, i.e. g_t = dy_t C_t + exp(delta_(t+1) A) g_(t+1):
//   dC_t = sum_e dy_t h_t          dB_t = sum_e g_t delta_t x_t        d(delta_t x_t) = sum_n g_t B_t
//   d(delta_t A) = g_t exp(delta_t A) h_(t-1)   which feeds ddelta and dA
// A block takes the stages of its chunk from the last to the first. Per stage it recomputes the states from the saved
// one in two levels: once through the stage, keeping a checkpoint every SUB tokens in shared memory, then SUB tokens at
// a time with states and decays in registers, walking back over them. Sums across blocks go through partial arrays
// that backward_finish adds in a fixed order: no atomics, so repeats are bit-identical.
#include "finish.cuh"
#include "walk.cuh"
#include "walk_back.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, BACKWARD_BLOCKS) backward_scan(const __grid_constant__ ScanArgs p) {
    BackwardStage& stage = *reinterpret_cast<BackwardStage*>(shared);
    const Place at(p, p.chunks);
    const int first = at.chunk * p.chunk_stages, end = min(first + p.chunk_stages, p.stages);
    const long long bk = (long long)at.b * p.K + at.k, chunk_index = (long long)at.b * p.chunks + at.chunk;
    const int padded = p.channel_blocks * BLOCK_CHANNELS;
    const bool swapped = at.group & 4;

    Lane lane(stage, at);
    load_A(lane.a, p, at);
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

    for (int s = end - 1; s >= first; s--) {
        const int position = load_position(p, at, s);
        int rows[PASSES];
        Piece x[PASSES], dt[PASSES], dy[PASSES];
        LaneStates h;
#pragma unroll
        for (int r = 0; r < PASSES; r++) {
            rows[r] = __shfl_sync(~0u, position, at.row + r * PASS_ROWS);
            x[r] = load_row(x_rows, p.E, rows[r], at.piece_valid, 0u);
            dt[r] = load_row(dt_rows, p.dt_token, rows[r], at.piece_valid, MINUS_INFINITY);  // delta 0
            dy[r] = load_row(dy_rows, p.E, rows[r], at.piece_valid, 0u);
        }
        states.load(position);
        load_states(h, static_cast<const SavedState*>(p.states) + at.state_offset(p, bk * p.stages + s));
        swap_halves(h, swapped);
#pragma unroll
        for (int r = 0; r < PASSES; r++) {
            float delta[PIECE], input[PIECE], gradient[PIECE], shift[PIECE];
            load_vector(shift, bias);
            unpack(dt[r], delta, at.piece_valid, NO_STEP);
            unpack(x[r], input, at.piece_valid, 0.f);
            unpack(dy[r], gradient, at.piece_valid, 0.f);
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
#pragma unroll
        for (int r = 0; r < PASSES; r++) {
            rows[r] = stage.rows[at.row + r * PASS_ROWS];
            x[r] = load_row(x_rows, p.E, rows[r], at.piece_valid, 0u);
        }
        __syncthreads();

#pragma unroll
        for (int r = 0; r < PASSES; r++) {
            const int t = at.row + r * PASS_ROWS, valid = rows[r] < 0 ? 0 : at.piece_valid;
            float input[PIECE], through_decay[PIECE], ddt[PIECE], dx[PIECE];
            unpack(x[r], input);
            load_vector(through_decay, &stage.dy[t][PIECE * at.piece]);
#pragma unroll
            for (int w = 0; w < PIECE / 2; w++) {
                const float4 v = stage.channels[t][swizzle(at.piece * (PIECE / 2) + w)];
                const float delta[2] = {v.x, v.z}, d_input[2] = {v.y, v.w};
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const int c = 2 * w + i;
                    ddt[c] = (through_decay[c] * LN2 + input[c] * d_input[i]) * softplus_derivative(delta[i]);
                    dx[c] = delta[i] * d_input[i];
                }
            }
            float total[PIECE];
            load_vector(total, bias_total);
#pragma unroll
            for (int c = 0; c < PIECE; c++) total[c] += ddt[c];
            store_vector(bias_total, total);
            store_piece(ddt_rows + (long long)rows[r] * (p.K * p.E), ddt, valid);
            store_piece(dx_rows + (long long)rows[r] * p.E, dx, valid);
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

// The three reductions over partial results in one launch.
extern "C" __global__ void __launch_bounds__(FINISH_THREADS) backward_finish(const __grid_constant__ ScanArgs p) {
    const int block = blockIdx.x;
    if (block < p.param_blocks) return finish_parameters(p);
    if (block < p.param_blocks + p.state_blocks)
        return finish_states(p, (long long)(block - p.param_blocks) * FINISH_THREADS + threadIdx.x);
    combine(p, p.dy, (long long)(block - p.param_blocks - p.state_blocks) * FINISH_THREADS + threadIdx.x);
}
