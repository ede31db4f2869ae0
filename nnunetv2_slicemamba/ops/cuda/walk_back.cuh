// One stage of the backward scan: its shared memory, and the walk back over a few tokens at a time.
#pragma once
#include "common.cuh"

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
        for (int n = 0; n < HALF; n++) sums[m][n] += exchange(sums[m][SWAPS ? n + HALF : n], GROUP_4);
#pragma unroll
    for (int n = 0; n < HALF; n++) own[n] = fold(sums[0][n], sums[1][n], group & 2, GROUP_2);
#pragma unroll
    for (int n = 0; n < OWN; n++) own[n] = HALF > 1 ? fold(own[n], own[(n + OWN) % HALF], group & 1, GROUP_1) : own[n] + exchange(own[n], GROUP_1);
}
__device__ __forceinline__ int own_state(int group) {
    return (SWAPS && group & 4 ? HALF : 0) + (HALF > 1 && group & 1 ? OWN : 0);
}
__device__ __forceinline__ bool duplicate(int group) { return (!SWAPS && group & 4) || (HALF == 1 && group & 1); }

// A lane's working set: its places in shared memory at the stage's first token, its A and sums.
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
        // over the states: parts 0, 1 end with d_input of channel 0, 1, parts 2, 3 with d_delta
        const float first = fold(d_input[0], d_delta[0], lane.part & 2, PART_2);
        const float second = fold(d_input[1], d_delta[1], lane.part & 2, PART_2);
        over_states[u] = fold(first, second, lane.part & 1, PART_1);
    }
    __syncwarp();  // every lane has read what the gradients replace
#pragma unroll
    for (int u = 0; u < SUB; u++) {
        const int t = sub * SUB + u;
        if (lane.part & 2) lane.dy[t * BLOCK_CHANNELS + (lane.part & 1)] = over_states[u];
        else reinterpret_cast<float*>(lane.channels + t * CHANNEL_STEP)[(lane.part & 1) * 2 + 1] = over_states[u];
    }
}
