// Enough of CUDA to run a kernel on the CPU: each thread of a block is a fiber, switched at every barrier and shuffle.
//
// A block runs until all fibers have returned; where none can go on, some thread missed a barrier or a shuffle that
// others wait in, and the process ends with a message. Shared memory is static: its content outlives a block, as
// nothing may depend on it.
#pragma once
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define __device__
#define __global__
#define __forceinline__ inline
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline unsigned __float_as_uint(float v) { unsigned u; memcpy(&u, &v, 4); return u; }
inline float __uint_as_float(unsigned u) { float v; memcpy(&v, &u, 4); return v; }
template <typename T> inline T __ldg(const T* at) { return *at; }
template <typename T> inline T __ldcs(const T* at) { return *at; }
inline float __expf(float v) { return expf(v); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float v) { return 1.f / sqrtf(v); }
template <typename T> inline T max(T a, T b) { return a < b ? b : a; }
template <typename T> inline T min(T a, T b) { return b < a ? b : a; }

struct Index { unsigned x; };
static Index threadIdx, blockIdx, gridDim, blockDim;

namespace emulation {
constexpr unsigned STACK = 128 * 1024, MAX_THREADS = 256;

struct Fiber {
    ucontext_t context;
    char* stack;
    bool done;
    int shuffles, barriers;
};

static Fiber fibers[MAX_THREADS];
static ucontext_t scheduler;
static void (*body)(const void*);
static const void* arguments;
static unsigned current;
static bool progress;
static float slots[2][MAX_THREADS];
static int warp_arrived[32], warp_passed[32], block_arrived, block_passed;

inline void leave() { swapcontext(&fibers[current].context, &scheduler); }

// Waits until `threads` threads have come here as often as this one has.
inline void meet(int& arrived, int& passed, int& visits, int threads) {
    progress = true;
    const int visit = ++visits;
    if (++arrived == threads) arrived = 0, passed++;
    while (passed < visit) leave();
    progress = true;
}

inline void start() {
    body(arguments);
    fibers[current].done = progress = true;
    leave();
}

inline void run(unsigned blocks, unsigned threads, void (*kernel)(const void*), const void* given) {
    body = kernel, arguments = given, gridDim.x = blocks, blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
        memset(warp_arrived, 0, sizeof warp_arrived), memset(warp_passed, 0, sizeof warp_passed);
        block_arrived = block_passed = 0;
        for (unsigned t = 0; t < threads; t++) {
            Fiber& f = fibers[t];
            if (!f.stack) f.stack = static_cast<char*>(malloc(STACK));
            f.done = false, f.shuffles = f.barriers = 0;
            getcontext(&f.context);
            f.context.uc_stack.ss_sp = f.stack, f.context.uc_stack.ss_size = STACK, f.context.uc_link = nullptr;
            makecontext(&f.context, start, 0);
        }
        for (unsigned left = threads; left > 0;) {
            left = 0, progress = false;
            for (current = 0; current < threads; current++) {
                if (fibers[current].done) continue;
                threadIdx.x = current;
                swapcontext(&scheduler, &fibers[current].context);
                left += !fibers[current].done;
            }
            if (left > 0 && !progress) {
                fprintf(stderr, "block %u: %u threads wait for others that have returned or wait elsewhere\n", blockIdx.x, left);
                abort();
            }
        }
    }
}
}  // namespace emulation

inline void __syncthreads() {
    using namespace emulation;
    meet(block_arrived, block_passed, fibers[current].barriers, int(blockDim.x));
    threadIdx.x = current;
}

inline float __shfl_xor_sync(unsigned, float v, int mask) {
    using namespace emulation;
    Fiber& f = fibers[current];
    const int warp = current / 32;
    float(&side)[MAX_THREADS] = slots[f.shuffles & 1];  // of the shuffle before, others may still be reading the other side
    side[current] = v;
    meet(warp_arrived[warp], warp_passed[warp], f.shuffles, 32);
    threadIdx.x = current;
    return side[current ^ unsigned(mask)];
}
