// The launch before THE launch, for rules that are measured (LAMB): the norms of the weights of each tensor and of
// their updates, and from them its trust ratio (twin of measures.py). It reads what THE launch reads, and goes the same
// way up to the update; it writes trust ratios alone. Chunks make up parts, parts tensors.
//
// The compiler's options are those of step.cu, for a kernel that stores nothing.
#include "sums.cuh"
#include "walk.cuh"

static_assert(WARPS * ACCUMULATORS <= STACK_SIZE * EVALUATORS);

// Squared norms.
struct Norms {
    double weight;
    double update;
};

template <bool WIDE>
__device__ __forceinline__ void measure_granule(const Arrays& arrays, const Place<WIDE>& place, const Coefficients& c,
                                                const float* codes, double (&weights)[SIZE], double (&updates)[SIZE]) {
    const auto param = load<PARAM, SIZE>(arrays.param, place);
    const auto companion = load<COMPANION, SIZE>(arrays.companion, place);
    const auto grads = load<GRAD, SIZE>(arrays.grad, place);
    State<STATE0, SIZE> state0;
    State<STATE1, SIZE> state1;
    State<STATE2, SIZE> state2;
    state0.read(arrays.state0, place, codes);
    state1.read(arrays.state1, place, codes);
    state2.read(arrays.state2, place, codes);
#pragma unroll
    for (int j = 0; j < SIZE; ++j) {
        if (j < place.left) {
            const Compute weight = Weights::read(param.element[j], companion.element[j]);
            const Compute grad = scaled_and_clipped(grads.element[j], c);
            const double update =
                static_cast<double>(c.rule.direction(weight, grad, state0.value[j], state1.value[j], state2.value[j]));
            weights[j] += static_cast<double>(weight) * static_cast<double>(weight);
            updates[j] += update * update;
        }
    }
}

__device__ __forceinline__ Norms measure_chunk(const Launch& launch, const Tensor& tensor, const Chunk& chunk,
                                               Scratch& scratch) {
    const int64 begin = static_cast<int64>(chunk.index) * CHUNK;
    const Coefficients& c = coefficients_of(launch, tensor, chunk, nullptr, scratch);
    const Arrays arrays(tensor, begin);
    Accumulators<SIZE> weights, updates;
    visit_rounds<SIZE>(chunk_count(tensor, begin), tensor.wide, [&](const auto& place, int i) {
        measure_granule(arrays, place, c, scratch.codes, weights.sums[i], updates.sums[i]);
    });
    double* shared = scratch.stack + threadIdx.x / WARP * ACCUMULATORS;  // nobody evaluates any more
    const double weight = weights.fold(shared);
    __syncwarp();
    return {weight, updates.fold(shared)};
}

__device__ __forceinline__ void put(double* target, const Norms& norms) {
    put(target, norms.weight);
    put(target + 1, norms.update);
}

__device__ __forceinline__ Norms fold_norms(const double* norms, int count) {
    return {fold<2>(norms, count), fold<2>(norms + 1, count)};
}

// How far along its update a tensor goes; `limit`: of the row, where 0 says that it is not adapted.
__device__ inline double trust_ratio(const Norms& norms, double limit) {
    if (limit == 0.0 || !(norms.weight > 0.0 && norms.update > 0.0)) return 1.0;
    const double ratio = sqrt(norms.weight) / sqrt(norms.update);
    return ratio > limit ? limit : ratio;
}

// A warp's chunk; whose is the last of a part, or of the tensor, goes on to that.
__device__ __forceinline__ void measure(const Launch& launch, const Tensor& tensor, const Chunk& chunk, int row,
                                        Scratch& scratch) {
    put(launch.chunk_norms + 2ll * row, measure_chunk(launch, tensor, chunk, scratch));
    const int32 chunks = static_cast<int32>((tensor.numel + CHUNK - 1) / CHUNK);
    const int32 place = chunk.index % SPAN;
    const int32 count = min(SPAN, chunks - chunk.index + place);
    if (!is_last(launch.part_tickets + chunk.part, count)) return;
    put(launch.part_norms + 2ll * chunk.part, fold_norms(launch.chunk_norms + 2ll * (row - place), count));
    const int32 parts = (chunks + SPAN - 1) / SPAN;
    if (!is_last(launch.trust_tickets + chunk.tensor, parts)) return;
    const Norms norms = fold_norms(launch.part_norms + 2ll * (chunk.part - chunk.index / SPAN), parts);
    put(launch.trusts + chunk.tensor, trust_ratio(norms, __ldcg(row_of(launch, tensor.cohort) + TRUST_LIMIT)));
}

extern "C" __global__ void __launch_bounds__(BLOCK, RESIDENT) KERNEL(const __grid_constant__ Launch launch) {
    __shared__ Scratch scratch;
    load_codes(launch, scratch);
    if (judge(launch, scratch) != APPLY) return;
    forget_coefficients(scratch);
    visit_chunks(launch, [&](const Tensor& tensor, const Chunk& chunk, int row) {
        measure(launch, tensor, chunk, row, scratch);
    });
}
