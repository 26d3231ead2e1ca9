// Weights and their averages exchange places; nothing ticks.
//
// Compiled once a format, with these names given by the compiler's options:
//   KERNEL  the kernel's name    PARAM  storage type of parameters    BLOCK  threads of a block
//   COMPANION  what a 16-bit parameter leaves out: float, Remainder or Absent
#include "granules.cuh"

using Compute = Format<PARAM>::Compute;
using Weights = Weight<PARAM, COMPANION, false>;

constexpr int SIZE = granule_size<PARAM, COMPANION, Compute>();
// A 16-bit parameter alone cannot hold the average: it shows it, rounded, and the host keeps what it was.
constexpr bool EXCHANGES = is_present<COMPANION> || sizeof(PARAM) == sizeof(Compute);

template <bool WIDE>
__device__ __forceinline__ void swap_granule(const Array<PARAM>& params, const Array<COMPANION>& companions,
                                             const Array<Compute>& emas, const Place<WIDE>& place) {
    auto param = load<PARAM, SIZE>(params, place);
    auto companion = load<COMPANION, SIZE>(companions, place);
    auto ema = load<Compute, SIZE>(emas, place);
#pragma unroll
    for (int j = 0; j < SIZE; ++j) {
        const Compute weight = Weights::read(param.element[j], companion.element[j]);
        Weights::write(ema.element[j], 0, param.element[j], companion.element[j]);
        if constexpr (EXCHANGES) ema.element[j] = weight;
    }
    store(params, place, param);
    store(companions, place, companion);
    store(emas, place, ema);
}

extern "C" __global__ void __launch_bounds__(BLOCK) KERNEL(const __grid_constant__ Launch launch) {
    const int first = blockIdx.x * launch.chunks_per_block;
    const int last = min(first + launch.chunks_per_block, launch.chunk_count);
    for (int row = first + threadIdx.x / WARP; row < last; row += WARPS) {
        const Chunk chunk = global(launch.chunks)[row];
        const Tensor& tensor = global(launch.tensors)[chunk.tensor];
        const int64 begin = static_cast<int64>(chunk.index) * CHUNK;
        const Array<PARAM> params(tensor.param, tensor.numel, begin);
        const Array<COMPANION> companions(tensor.companion, tensor.numel, begin);
        const Array<Compute> emas(tensor.ema, tensor.numel, begin);
        if (tensor.ema == 0) continue;
        visit_granules<SIZE>(chunk_count(tensor, begin), tensor.wide,
                             [&](const auto& place) { swap_granule(params, companions, emas, place); });
    }
}
