// Settings of the kernels and how their work is laid out.
//
// The host compiles these files with NVRTC and sets
//   ELEMENT      type of x, dt, B, C, y and their gradients: 0 float32, 1 float16, 2 bfloat16
//   STATES       states per channel, padded to 4, 8, 16 or 32 (padding has A = B = C = 0)
//   STAGE        tokens per stage, 16 or 32; a stage lives in shared memory
//   WIDE_ROWS    1: rows of x, dt, y and dy can be read 16 bytes at a time and E is a multiple of 8
//   WIDE_STATES  1: rows of B and C can be read two elements at a time and N is STATES
//   FORWARD_BLOCKS, BACKWARD_BLOCKS   resident blocks per multiprocessor that the registers must allow
//   SHARED_FORWARD, SHARED_BACKWARD   bytes of dynamic shared memory, checked against the structures
//
// Work layout: a block of 4 warps owns 64 channels of one (batch, direction, chunk) and walks its tokens. A lane owns
// 2 channels x STATES/4 states: `group` (0 to 7) picks the channels of the warp's 16, `part` (0 to 3) the states.
#pragma once
#include "elements.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = 32 * WARPS;
constexpr int LANE_CHANNELS = 2;
constexpr int LANE_STATES = STATES / 4;
constexpr int LANE_VALUES = LANE_CHANNELS * LANE_STATES;
constexpr int WARP_CHANNELS = 8 * LANE_CHANNELS;
constexpr int BLOCK_CHANNELS = WARPS * WARP_CHANNELS;
constexpr int ROW_THREADS = BLOCK_CHANNELS / PIECE;
constexpr int PASS_ROWS = THREADS / ROW_THREADS;
constexpr int PASSES = STAGE / PASS_ROWS;
// Bits of the lane number that make up group and part. Neighbours (bit 0) share the states and lanes two apart (bit 1)
// the channels: that lets the hardware serve 16-byte shared memory reads of either for half a warp at a time.
constexpr int GROUP_1 = 1, GROUP_2 = 8, GROUP_4 = 16, PART_1 = 2, PART_2 = 4;
__device__ __forceinline__ int group_of(int lane) { return (lane & 1) | (lane >> 2 & 6); }
__device__ __forceinline__ int part_of(int lane) { return lane >> 1 & 3; }
constexpr float LOG2E = 1.4426950408889634f;
#define NO_STEP __int_as_float(0xff800000)  // dt of what does not exist: minus infinity makes delta 0
constexpr float LN2 = 0.6931471805599453f;
static_assert(STAGE == 16 || STAGE == 32, "a lane keeps one token position, so a stage has at most 32 tokens");
