// The walk along the tokens of one chunk that the forward scan and both chunk passes share.
//
// A block walks the tokens of one (batch, direction, chunk) in scan order, in stages of STAGE tokens. Rows are read at
// their scan position and prefetched into registers one stage ahead; softplus is taken once per element on the way into
// shared memory.
#pragma once
#include "common.cuh"

struct __align__(16) ForwardStage {
    float4 channels[STAGE][BLOCK_CHANNELS / 2];  // (delta, delta x) of two channels each, swizzled
    float states[STAGE][2 * STATES];             // B, then C
    int rows[STAGE];                             // raster index, -1 past the end
};

// Sub-steps of 4 tokens that the compiler may interleave; a stage has at least four.
constexpr int FORWARD_UNROLL = 2;
static_assert(2 * sizeof(ForwardStage) == SHARED_FORWARD, "the host gives another size");

// OUTPUT computes y; CHUNK the end state of a chunk; REVERSE_CHUNK, for the backward, the gradient that leaves a
// chunk's first token: g_(t-1) = exp(delta_t A) (g_t + dy_t C_t), i.e. the same walk backwards with (x, B) = (dy, C).
enum Pass { OUTPUT, CHUNK, REVERSE_CHUNK };

template <int PASS> __device__ __forceinline__ void walk_chunk(const ScanArgs& p) {
    ForwardStage* const buffers = reinterpret_cast<ForwardStage*>(shared);
    Place at(p, PASS == OUTPUT ? p.chunks : p.chunks - 1);
    if (PASS == REVERSE_CHUNK) at.chunk += 1;  // the first chunk sends its gradient nowhere
    const int first = at.chunk * p.chunk_stages, end = min(first + p.chunk_stages, p.stages), count = end - first;
    const long long bk = (long long)at.b * p.K + at.k;

    LaneStates a, h;
    load_A(a, p, at);
#pragma unroll
    for (int c = 0; c < LANE_CHANNELS; c++)
#pragma unroll
        for (int n = 0; n < LANE_STATES; n++) h[c][n] = 0.f;
    if (PASS == OUTPUT && p.chunks > 1) load_states(h, p.chunk_state + at.state_offset(p, bk * p.chunks + at.chunk));
    float delta_sum[LANE_CHANNELS] = {};

    const Element* const x_rows = static_cast<const Element*>(PASS == REVERSE_CHUNK ? p.dy : p.x)
        + (long long)at.b * p.L * p.E + at.piece_channel;
    const Element* const dt_rows = static_cast<const Element*>(p.dt)
        + at.b * p.dt_batch + (long long)at.k * p.dt_direction + at.piece_channel;
    Element* const y_rows = static_cast<Element*>(p.y) + bk * p.L * p.E + at.channel;
    float bias[PIECE];
#pragma unroll
    for (int i = 0; i < PIECE; i++)
        bias[i] = p.bias && i < at.piece_valid ? p.bias[(long long)at.k * p.E + at.piece_channel + i] : 0.f;

    Piece x[PASSES], dt[PASSES];
    int rows[PASSES];
    StateRows<PASS == OUTPUT ? 2 : 1> states(p, at, PASS == REVERSE_CHUNK);
    auto stage_of = [&](int i) { return PASS == REVERSE_CHUNK ? end - 1 - i : first + i; };
    int position = load_position(p, at, stage_of(0));
    auto prefetch = [&](int i) {
#pragma unroll
        for (int r = 0; r < PASSES; r++) {
            rows[r] = __shfl_sync(~0u, position, at.row + r * PASS_ROWS);
            x[r] = load_row(x_rows, p.E, rows[r], at.piece_valid, 0u);
            dt[r] = load_row(dt_rows, p.dt_token, rows[r], at.piece_valid, MINUS_INFINITY);  // delta 0
        }
        states.load(position);
        position = i + 1 < count ? load_position(p, at, stage_of(i + 1)) : -1;
    };
    prefetch(0);

    for (int i = 0; i < count; i++) {
        ForwardStage& stage = buffers[i & 1];
#pragma unroll
        for (int r = 0; r < PASSES; r++) {
            float delta[PIECE], input[PIECE];
            unpack(dt[r], delta, at.piece_valid, NO_STEP);
            unpack(x[r], input, at.piece_valid, 0.f);
            const int t = at.row + r * PASS_ROWS;
#pragma unroll
            for (int c = 0; c < PIECE; c++) {
                delta[c] = softplus(delta[c] + bias[c]);
                if (PASS != REVERSE_CHUNK) input[c] *= delta[c];
            }
#pragma unroll
            for (int w = 0; w < PIECE / 2; w++)
                stage.channels[t][swizzle(at.piece * (PIECE / 2) + w)] =
                    make_float4(delta[2 * w], input[2 * w], delta[2 * w + 1], input[2 * w + 1]);
            if (at.piece == 0) stage.rows[t] = rows[r];
        }
        states.put([&](int t, int matrix, int state, float2 v) {
            *reinterpret_cast<float2*>(&stage.states[t][matrix * STATES + state]) = v;
        });
        __syncthreads();  // the other buffer is free from here on: every warp has left the stage before
        if (i + 1 < count) prefetch(i + 1);
        if (PASS == OUTPUT && p.states)
            store_states(static_cast<SavedState*>(p.states) + at.state_offset(p, bk * p.stages + first + i), h);

        const int word = swizzle(at.warp * (WARP_CHANNELS / 2) + at.group);
#pragma unroll FORWARD_UNROLL
        for (int t4 = 0; t4 < STAGE; t4 += 4) {
            float y[4][LANE_CHANNELS];
#pragma unroll
            for (int u = 0; u < 4; u++) {
                const int t = PASS == REVERSE_CHUNK ? STAGE - 1 - (t4 + u) : t4 + u;
                float B[LANE_STATES], C[LANE_STATES];
                load_vector(B, &stage.states[t][at.part * LANE_STATES]);
                if (PASS == OUTPUT) load_vector(C, &stage.states[t][STATES + at.part * LANE_STATES]);
                const float4 v = stage.channels[t][word];
                const float delta[LANE_CHANNELS] = {v.x, v.z}, input[LANE_CHANNELS] = {v.y, v.w};
#pragma unroll
                for (int c = 0; c < LANE_CHANNELS; c++) {
                    if (PASS != OUTPUT) delta_sum[c] += delta[c];
                    float sum = 0.f;
#pragma unroll
                    for (int n = 0; n < LANE_STATES; n++) {
                        const float decay = exp2_fast(delta[c] * a[c][n]);
                        if (PASS == REVERSE_CHUNK) h[c][n] = decay * fmaf(input[c], B[n], h[c][n]);
                        else h[c][n] = fmaf(decay, h[c][n], input[c] * B[n]);
                        if (PASS == OUTPUT) sum = fmaf(h[c][n], C[n], sum);
                    }
                    y[u][c] = sum;
                }
            }
            if (PASS == OUTPUT) {  // sum over the lanes' states; lane `part` ends with token t4 + part
                float half[2][LANE_CHANNELS], whole[LANE_CHANNELS];
#pragma unroll
                for (int c = 0; c < LANE_CHANNELS; c++) {
                    half[0][c] = fold(y[0][c], y[2][c], at.part & 2, PART_2);
                    half[1][c] = fold(y[1][c], y[3][c], at.part & 2, PART_2);
                    whole[c] = fold(half[0][c], half[1][c], at.part & 1, PART_1);
                }
                const int row = stage.rows[t4 + at.part];
                if (row >= 0) store_pair(y_rows + (long long)row * p.E, whole[0], whole[1], at.valid);
            }
        }
    }
    if (PASS != OUTPUT) {
        const long long index = bk * p.chunks + at.chunk;
        store_states(p.chunk_state + at.state_offset(p, index), h);
        if (at.part == 0)
            *reinterpret_cast<float2*>(p.chunk_delta + index * p.channel_blocks * BLOCK_CHANNELS + at.channel) =
                make_float2(delta_sum[0], delta_sum[1]);
    }
}
