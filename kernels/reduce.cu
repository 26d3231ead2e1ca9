// The launch before THE launch, where something must be summed first: the squares of all gradients, for their norms and
// to see whether they are finite (twin of reduction.py). One kernel serves all formats. Chunks make up spans, and spans
// scopes.
//   BLOCK   threads of a block
#include "scalars.cuh"
#include "sums.cuh"

constexpr double LARGEST_NORM = 1.7976931348623157e308;

struct Scratch {
    double accumulators[WARPS][ACCUMULATORS];
};

// The squares of a chunk of gradients.
template <typename Grad>
__device__ __forceinline__ double chunk_sum(const Tensor& tensor, int32 index, double* shared) {
    constexpr int SIZE = 16 / sizeof(Grad);
    const int64 begin = static_cast<int64>(index) * CHUNK;
    const Array<Grad> array(tensor.grad, tensor.numel, begin);
    Accumulators<SIZE> accumulators;
    visit_rounds<SIZE>(chunk_count(tensor, begin), tensor.wide, [&](const auto& place, int i) {
        const auto grads = load<Grad, SIZE>(array, place);
#pragma unroll
        for (int j = 0; j < SIZE; ++j) {
            const double grad = static_cast<double>(Format<Grad>::value(grads.element[j]));
            accumulators.sums[i][j] += grad * grad;
        }
    });
    return accumulators.fold(shared);
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

// The norm of a scope, in the scale of the loss itself. Squares of 16- and 32-bit gradients cannot overflow in double,
// so a norm that is not finite says that a gradient is not, or the scale by which it was to be divided.
__device__ inline void finish_scope(const Launch& launch, int scope, double total) {
    if (threadIdx.x % WARP != 0) return;
    const double norm = sqrt(total) * fabs(inverse_scale(launch));
    launch.norms[scope] = norm;
    if (!(norm <= LARGEST_NORM)) atomicOr(&launch.progress->nonfinite, 1u);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 4) reduce(const __grid_constant__ Launch launch) {
    __shared__ Scratch scratch;
    double* shared = scratch.accumulators[threadIdx.x / WARP];
    const int begin = blockIdx.x * launch.chunks_per_block;
    const int end = min(begin + launch.chunks_per_block, launch.chunk_count);
    for (int row = begin + threadIdx.x / WARP; row < end; row += WARPS) {
        const Chunk chunk = global(launch.chunks)[row];
        const double sum = chunk_sum_of(global(launch.tensors)[chunk.tensor], chunk.index, shared);
        const Span& span = launch.spans[chunk.span];
        put(launch.chunk_sums + row, sum);
        if (!is_last(launch.span_tickets + chunk.span, span.count)) continue;
        const Scope& scope = launch.scopes[span.scope];
        put(launch.span_sums + chunk.span, fold(launch.chunk_sums + span.first, span.count));
        if (!is_last(launch.scope_tickets + span.scope, scope.count)) continue;
        finish_scope(launch, span.scope, fold(launch.span_sums + scope.first, scope.count));
    }
}
