// THE launch: one optimizer step over any number of tensors, schedules included.
//
// Compiled once a specialisation, with these names given by the compiler's options:
//   KERNEL  the kernel's name            RULE    a rule of rules.cuh
//   PARAM   storage type of parameters   GRAD    storage type of gradients
//   STATE0, STATE1, STATE2               storage types of the rule's states, or Absent
//   COMPANION  what a 16-bit parameter leaves out: float, Remainder or Absent
//   EMA     storage type of the average of the weights, or Absent
//   STOCHASTIC  1: parameters are rounded at random    ZERO_GRADS  1: gradients are left zero
//   BLOCK   threads of a block           RESIDENT  blocks that an SM is to hold at once
//
// The data flow: may the step be applied? -> every warp updates its chunks -> the last block ticks the clocks and puts
// out the rows that the next launch reads.
#include "walk.cuh"

__device__ __forceinline__ void move_average(Compute& average, Compute weight, Compute share) {
    average = average + share * (weight - average);
}
__device__ __forceinline__ void move_average(Absent&, Compute, Compute) {}

// The granule of a lane: load, scale and clip the gradient, rule, average, store.
template <bool WIDE>
__device__ __forceinline__ void update_granule(const Arrays& arrays, const Place<WIDE>& place, const Coefficients& c,
                                               const float* codes, uint64 key) {
    auto param = load<PARAM, SIZE>(arrays.param, place);
    auto companion = load<COMPANION, SIZE>(arrays.companion, place);
    auto ema = load<EMA, SIZE>(arrays.ema, place);
    const auto grads = load<GRAD, SIZE>(arrays.grad, place);
    State<STATE0, SIZE> state0;
    State<STATE1, SIZE> state1;
    State<STATE2, SIZE> state2;
    state0.read(arrays.state0, place, codes);
    state1.read(arrays.state1, place, codes);
    state2.read(arrays.state2, place, codes);
    const uint64 stream = rounding::slot_key(key, 0);
#pragma unroll
    for (int j = 0; j < SIZE; ++j) {
        const Compute grad = scaled_and_clipped(grads.element[j], c);
        Compute weight = Weights::read(param.element[j], companion.element[j]);
        c.rule.update(weight, grad, state0.value[j], state1.value[j], state2.value[j]);
        Weights::write(weight, rounding::draw(stream, place.index + j), param.element[j], companion.element[j]);
        move_average(ema.element[j], Weights::read(param.element[j], companion.element[j]), c.ema_weight);
    }
    store(arrays.param, place, param);
    store(arrays.companion, place, companion);
    store(arrays.ema, place, ema);
    state0.write(arrays.state0, place, codes, rounding::slot_key(key, 1));
    state1.write(arrays.state1, place, codes, rounding::slot_key(key, 2));
    state2.write(arrays.state2, place, codes, rounding::slot_key(key, 3));
    if constexpr (ZERO_GRADS) store(arrays.grad, place, Granule<GRAD, SIZE>{});
}

// A warp's chunk of a tensor.
__device__ __forceinline__ void update_chunk(const Launch& launch, const Tensor& tensor, const Chunk& chunk,
                                             Scratch& scratch) {
    const int64 begin = static_cast<int64>(chunk.index) * CHUNK;
    const double* trusts = is_measured<RULE> ? launch.trusts : nullptr;
    const Coefficients& c = coefficients_of(launch, tensor, chunk, trusts, scratch);
    const uint64 key =
        DRAWS ? rounding::chunk_key(launch.scalars->seed, launch.clocks[tensor.cohort].step, chunk.tensor, chunk.index)
              : 0;
    const Arrays arrays(tensor, begin);
    const auto update = [&](const auto& place) { update_granule(arrays, place, c, scratch.codes, key); };
    visit_granules<SIZE>(chunk_count(tensor, begin), tensor.wide, update);
}

// Even a step that is skipped leaves the gradients zero, where they are to be.
__device__ __forceinline__ void clear_chunk(const Tensor& tensor, const Chunk& chunk) {
    const int64 begin = static_cast<int64>(chunk.index) * CHUNK;
    const Array<GRAD> grads(tensor.grad, tensor.numel, begin);
    const auto clear = [&](const auto& place) { store(grads, place, Granule<GRAD, SIZE>{}); };
    visit_granules<SIZE>(chunk_count(tensor, begin), tensor.wide, clear);
}

// Is this the last block of the step? Whoever asks has read the clocks and the rows for the last time.
__device__ inline bool is_last_block(const Launch& launch, Scratch& scratch) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        scratch.last = atomicAdd(&launch.progress->ticket, 1u) == launch.blocks - 1;
        __threadfence();
    }
    __syncthreads();
    return scratch.last;
}

// Tick the clocks if the step was applied, count it if it was skipped, and put out the rows of the next one. A row out
// of range is a fault: it holds the steps to come until the host changes something.
__device__ __forceinline__ void prepare_next(const Launch& launch, Verdict verdict, Scratch& scratch) {
    Progress& progress = *launch.progress;
    if (threadIdx.x == 0) {
        progress.skipped += verdict == SKIP;
        progress.overflowed += verdict == SKIP && launch.scalars->skips_nonfinite && progress.nonfinite;
        progress.nonfinite = 0;
        progress.ticket = 0;
    }
    put_out_rows(launch, verdict == APPLY, scratch);  // from here on, no register holds the verdict
    if (threadIdx.x != 0) return;
    progress.fault_cohort = scratch.fault == NO_FAULT ? VALID : static_cast<int32>(scratch.fault >> 32);
    progress.fault_index = static_cast<int32>(scratch.fault);
    progress.prepared = launch.revision->number;
}

extern "C" __global__ void __launch_bounds__(BLOCK, RESIDENT) KERNEL(const __grid_constant__ Launch launch) {
    __shared__ Scratch scratch;
    load_codes(launch, scratch);
    const Verdict found = judge(launch, scratch);
    Verdict& verdict = scratch.verdict;  // where it takes no register from the loop over chunks
    if (threadIdx.x == 0) verdict = found;
    if (found == APPLY) {
        forget_coefficients(scratch);
        visit_chunks(launch, [&](const Tensor& tensor, const Chunk& chunk, int) {
            update_chunk(launch, tensor, chunk, scratch);
        });
    } else if (ZERO_GRADS && found == SKIP) {
        visit_chunks(launch, [](const Tensor& tensor, const Chunk& chunk, int) { clear_chunk(tensor, chunk); });
    }
    if (is_last_block(launch, scratch)) prepare_next(launch, verdict, scratch);
}
