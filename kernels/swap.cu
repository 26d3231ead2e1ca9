// Weights show what is evaluated, and take their own values back; nothing ticks.
//
// Compiled once a format, with these names given by the compiler's options:
//   KERNEL  the kernel's name    PARAM  storage type of parameters    BLOCK  threads of a block
//   COMPANION  what a 16-bit parameter leaves out: float, Remainder or Absent
//   ELEMENT  Exchange or Mix
#include "granules.cuh"

using Compute = Format<PARAM>::Compute;
using Weights = Weight<PARAM, COMPANION, false>;

constexpr int SIZE = granule_size<PARAM, COMPANION, Compute>();

// Weights and their averages exchange places.
struct Exchange {
    // A 16-bit parameter alone cannot hold the average: it shows it, rounded, and the host keeps what it was.
    static constexpr bool EXCHANGES = is_present<COMPANION> || sizeof(PARAM) == sizeof(Compute);
    uint64 beside;

    __device__ __forceinline__ Exchange(const Launch&, const Tensor& tensor) : beside(tensor.ema) {}
    __device__ __forceinline__ Compute shown(Compute, Compute ema) const { return ema; }
};

// A weight is (1 - beta) z + beta x, or x: each follows from the other and from z, in double, rounded once.
struct Mix {
    static constexpr bool EXCHANGES = false;
    uint64 beside;  // z; 0 before a tensor's first update, when all three are one
    double share;

    __device__ __forceinline__ Mix(const Launch& launch, const Tensor& tensor) {
        const double beta = launch.values[launch.cohorts[tensor.cohort].mixing];
        beside = launch.clocks[tensor.cohort].updates > 0 ? tensor.states[0] : 0;
        share = launch.evaluates ? (beta - 1.0) / beta : 1.0 - beta;
    }
    __device__ __forceinline__ Compute shown(Compute weight, Compute z) const {
        const double from = weight;
        return static_cast<Compute>(from + share * (z - from));
    }
};

template <bool WIDE>
__device__ __forceinline__ void swap_granule(const Array<PARAM>& params, const Array<COMPANION>& companions,
                                             const Array<Compute>& besides, const ELEMENT& element,
                                             const Place<WIDE>& place) {
    auto param = load<PARAM, SIZE>(params, place);
    auto companion = load<COMPANION, SIZE>(companions, place);
    auto beside = load<Compute, SIZE>(besides, place);
#pragma unroll
    for (int j = 0; j < SIZE; ++j) {
        const Compute weight = Weights::read(param.element[j], companion.element[j]);
        Weights::write(element.shown(weight, beside.element[j]), 0, param.element[j], companion.element[j]);
        if constexpr (ELEMENT::EXCHANGES) beside.element[j] = weight;
    }
    store(params, place, param);
    store(companions, place, companion);
    if constexpr (ELEMENT::EXCHANGES) store(besides, place, beside);
}

extern "C" __global__ void __launch_bounds__(BLOCK) KERNEL(const __grid_constant__ Launch launch) {
    const int first = blockIdx.x * launch.chunks_per_block;
    const int last = min(first + launch.chunks_per_block, launch.chunk_count);
    for (int row = first + threadIdx.x / WARP; row < last; row += WARPS) {
        const Chunk chunk = global(launch.chunks)[row];
        const Tensor& tensor = global(launch.tensors)[chunk.tensor];
        const int64 begin = static_cast<int64>(chunk.index) * CHUNK;
        const ELEMENT element(launch, tensor);
        const Array<PARAM> params(tensor.param, tensor.numel, begin);
        const Array<COMPANION> companions(tensor.companion, tensor.numel, begin);
        const Array<Compute> besides(element.beside, tensor.numel, begin);
        if (element.beside == 0) continue;
        visit_granules<SIZE>(chunk_count(tensor, begin), tensor.wide,
                             [&](const auto& place) { swap_granule(params, companions, besides, element, place); });
    }
}
