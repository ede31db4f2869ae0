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
