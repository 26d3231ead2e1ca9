// The launch before THE launch, where something must be summed first: the squares of all gradients, for their norms and
// to see whether they are finite (twin of reduction.py). One kernel serves all formats.
//
// The order of the additions is fixed, whatever the grid: element e of a chunk goes to accumulator e % ACCUMULATORS;
// accumulators, chunks of a span, and spans of a scope are then folded alike, each by the warp that comes last.
//   BLOCK   threads of a block
#include "granules.cuh"
#include "scalars.cuh"

constexpr int ACCUMULATORS = 256;
constexpr int OWN = ACCUMULATORS / WARP;  // accumulators that a lane holds
constexpr double LARGEST_NORM = 1.7976931348623157e308;

struct Scratch {
    double accumulators[WARPS][ACCUMULATORS];
};

// Lanes are added, halves to halves; lane 0 has the sum.
__device__ __forceinline__ double fold_lanes(double value) {
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) value += __shfl_down_sync(~0u, value, lanes);
    return value;
}

// Each lane adds every 32nd value in order; what other warps have written is read through L2.
__device__ __forceinline__ double fold(const double* values, int count) {
    double sum = 0.0;
    for (int i = threadIdx.x % WARP; i < count; i += WARP) sum += __ldcg(values + i);
    return fold_lanes(sum);
}

// The squares of a chunk of gradients: a lane takes granules of SIZE elements, and so has accumulators of its own.
template <typename Grad>
__device__ __forceinline__ double chunk_sum(const Tensor& tensor, int32 index, double* shared) {
    constexpr int SIZE = 16 / sizeof(Grad);
    constexpr int GRANULES = OWN / SIZE;
    const int lane = threadIdx.x % WARP;
    const int64 begin = static_cast<int64>(index) * CHUNK;
    const int count = chunk_count(tensor, begin);
    const Array<Grad> array(tensor.grad, tensor.numel, begin);
    double sums[GRANULES][SIZE] = {};
    const auto add = [&](const auto& place, int i) {
        const auto grads = load<Grad, SIZE>(array, place);
#pragma unroll
        for (int j = 0; j < SIZE; ++j) {
            const double grad = static_cast<double>(Format<Grad>::value(grads.element[j]));
            sums[i][j] += grad * grad;
        }
    };
    const int whole = tensor.wide ? count - count % ACCUMULATORS : 0;
#pragma unroll 1
    for (int round = 0; round < count; round += ACCUMULATORS)
#pragma unroll
        for (int i = 0; i < GRANULES; ++i) {
            const int first = round + (i * WARP + lane) * SIZE;
            if (round < whole)
                add(Place<true>{first, SIZE}, i);
            else
                add(Place<false>{first, count - first}, i);
        }
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

__device__ inline double chunk_sum_of(const Tensor& tensor, int32 index, double* shared) {
    if (tensor.grad == 0) return 0.0;
    switch (tensor.grad_format) {
        case FLOAT32: return chunk_sum<float>(tensor, index, shared);
        case FLOAT64: return chunk_sum<double>(tensor, index, shared);
        case FLOAT16: return chunk_sum<float16>(tensor, index, shared);
        default: return chunk_sum<bfloat16>(tensor, index, shared);
    }
}

// Write a sum, and say whether it was the last of `count`; whoever is last sees all of them.
__device__ inline bool is_last(double* target, double sum, uint32* ticket, int count) {
    int last = 0;
    if (threadIdx.x % WARP == 0) {
        __stcg(target, sum);
        __threadfence();
        last = atomicAdd(ticket, 1u) == static_cast<uint32>(count) - 1;
        if (last) atomicExch(ticket, 0u);
        __threadfence();
    }
    last = __shfl_sync(~0u, last, 0);
    __syncwarp();  // a shuffle orders no memory: all lanes see what lane 0 waited for, and have read the shared memory
    return last;
}

// The norm of a scope, in the scale of the loss itself. Squares of 16- and 32-bit gradients cannot overflow in double,
// so a norm that is not finite says that a gradient is not, or the scale by which it was to be divided.
__device__ inline void finish_scope(const Launch& launch, int scope, double total) {
    if (threadIdx.x % WARP != 0) return;
    const double norm = sqrt(total) * fabs(inverse_scale(launch));
    launch.norms[scope] = norm;
    if (!(norm <= LARGEST_NORM)) atomicOr(&launch.progress->nonfinite, 1u);
}

extern "C" __global__ void __launch_bounds__(BLOCK) reduce(const __grid_constant__ Launch launch) {
    __shared__ Scratch scratch;
    double* shared = scratch.accumulators[threadIdx.x / WARP];
    const int begin = blockIdx.x * launch.chunks_per_block;
    const int end = min(begin + launch.chunks_per_block, launch.chunk_count);
    for (int row = begin + threadIdx.x / WARP; row < end; row += WARPS) {
        const Chunk chunk = global(launch.chunks)[row];
        const double sum = chunk_sum_of(global(launch.tensors)[chunk.tensor], chunk.index, shared);
        const Span& span = launch.spans[chunk.span];
        if (!is_last(launch.chunk_sums + row, sum, launch.span_tickets + chunk.span, span.count)) continue;
        const Scope& scope = launch.scopes[span.scope];
        const double whole = fold(launch.chunk_sums + span.first, span.count);
        if (!is_last(launch.span_sums + chunk.span, whole, launch.scope_tickets + span.scope, scope.count)) continue;
        finish_scope(launch, span.scope, fold(launch.span_sums + scope.first, scope.count));
    }
}
