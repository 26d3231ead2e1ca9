// Sums whose order is fixed, whatever the grid: element e of a chunk goes to accumulator e % ACCUMULATORS;
// accumulators, and after them chunks and what is made of chunks, are folded alike, each by the warp that comes last
// (twin of reduction.py).
#pragma once

#include "granules.cuh"

constexpr int ACCUMULATORS = 256;
constexpr int OWN = ACCUMULATORS / WARP;  // accumulators that a lane holds

// Lanes are added, halves to halves; lane 0 has the sum.
__device__ __forceinline__ double fold_lanes(double value) {
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) value += __shfl_down_sync(~0u, value, lanes);
    return value;
}

// Each lane adds every 32nd value in order; what other warps have written is read through L2. STRIDE: doubles from one
// value to the next.
template <int STRIDE = 1>
__device__ __forceinline__ double fold(const double* values, int count) {
    double sum = 0.0;
    for (int i = threadIdx.x % WARP; i < count; i += WARP) sum += __ldcg(values + i * STRIDE);
    return fold_lanes(sum);
}

// The accumulators of a chunk: a lane takes granules of SIZE elements, and so has OWN of them to itself.
template <int SIZE>
struct Accumulators {
    static constexpr int GRANULES = OWN / SIZE;
    double sums[GRANULES][SIZE] = {};

    __device__ __forceinline__ double fold(double* shared) const {
        const int lane = threadIdx.x % WARP;
#pragma unroll
        for (int i = 0; i < GRANULES; ++i)
#pragma unroll
            for (int j = 0; j < SIZE; ++j) shared[(i * WARP + lane) * SIZE + j] = sums[i][j];
        __syncwarp();
        double sum = 0.0;
#pragma unroll
        for (int i = 0; i < OWN; ++i) sum += shared[i * WARP + lane];
        return fold_lanes(sum);
    }
};

// The granules of a chunk, so many at a time as there are accumulators for; `visit` learns whose turn it is.
template <int SIZE, typename Visit>
__device__ __forceinline__ void visit_rounds(int count, bool wide, const Visit& visit) {
    const int lane = threadIdx.x % WARP;
    const int whole = wide ? count - count % ACCUMULATORS : 0;
#pragma unroll 1
    for (int round = 0; round < whole; round += ACCUMULATORS)
#pragma unroll
        for (int i = 0; i < OWN / SIZE; ++i) visit(Place<true>{round + (i * WARP + lane) * SIZE, SIZE}, i);
#pragma unroll 1
    for (int round = whole; round < count; round += ACCUMULATORS)
#pragma unroll
        for (int i = 0; i < OWN / SIZE; ++i) {
            const int first = round + (i * WARP + lane) * SIZE;
            visit(Place<false>{first, count - first}, i);
        }
}

// Write a sum where the warp that comes last reads it.
__device__ __forceinline__ void put(double* target, double sum) {
    if (threadIdx.x % WARP == 0) __stcg(target, sum);
}

// Was the sum that this warp has put the last of `count`? Whoever is last sees all of them.
__device__ inline bool is_last(uint32* ticket, int count) {
    int last = 0;
    if (threadIdx.x % WARP == 0) {
        __threadfence();
        last = atomicAdd(ticket, 1u) == static_cast<uint32>(count) - 1;
        if (last) atomicExch(ticket, 0u);
        __threadfence();
    }
    last = __shfl_sync(~0u, last, 0);
    __syncwarp();  // a shuffle orders no memory: all lanes see what lane 0 waited for, and have read the shared memory
    return last;
}
