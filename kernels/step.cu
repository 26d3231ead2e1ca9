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
#include "granules.cuh"
#include "program.cuh"
#include "rules.cuh"
#include "scalars.cuh"

using Compute = Format<PARAM>::Compute;
using Weights = Weight<PARAM, COMPANION, STOCHASTIC == 1>;

constexpr uint64 NO_FAULT = ~0ull;
constexpr int SIZE = granule_size<PARAM, GRAD, STATE0, STATE1, STATE2, COMPANION, EMA>();
constexpr bool HAS_CODES = is_8_bit<STATE0> || is_8_bit<STATE1> || is_8_bit<STATE2>;
constexpr bool DRAWS = STOCHASTIC == 1 || draws<STATE0> || draws<STATE1> || draws<STATE2>;

enum Verdict { APPLY, SKIP, HOLD };

// What a row begins with: the coefficients of the rule, then those of the recipe. The threshold of the norm follows
// them, in double.
struct Coefficients {
    RULE<Compute> rule;
    Compute clip_value;
    Compute ema_weight;
};
constexpr int COEFFICIENTS = sizeof(Coefficients) / sizeof(Compute);

struct Scratch {
    double stack[STACK_SIZE * EVALUATORS];
    Coefficients coefficients[WARPS];  // those that a warp holds, and of which cohort and scope
    int cohort[WARPS];
    int scope[WARPS];
    float codes[HAS_CODES ? 2 * CODES : 1];
    uint64 fault;  // of the rows put out last: NO_FAULT, or the first cohort at fault (high word) and its instruction
    Verdict verdict;
    int last;
};

__device__ __forceinline__ double* row_of(const Launch& launch, int cohort) {
    return launch.rows + static_cast<int64>(cohort) * ROW;
}

__device__ __forceinline__ void tick(const Cohort& own, Clock& clock, const double* next) {
    if (own.counts) {
        for (int i = 0; i < own.accumulators; ++i) clock.accumulators[i] = next[i];
        clock.updates += 1;
    }
    clock.step += own.ticks;
}

// Put out the row of every cohort from the clocks as they stand; with `ticks` they move on first. The evaluator stands
// here alone, out of line, so that its registers do not press on the loop over elements.
__device__ __noinline__ void put_out_rows(const Launch& launch, bool ticks, Scratch& scratch) {
    if (threadIdx.x == 0) scratch.fault = NO_FAULT;
    __syncthreads();
    if (threadIdx.x < EVALUATORS) {
        for (int cohort = threadIdx.x; cohort < launch.revision->cohort_count; cohort += EVALUATORS) {
            const Cohort& own = launch.cohorts[cohort];
            Clock& clock = launch.clocks[cohort];
            double* row = row_of(launch, cohort);
#pragma unroll 1
            for (bool first = ticks;; first = false) {
                const int begin = first ? own.evaluate_end : own.evaluate_begin;
                const int end = first ? own.advance_end : own.evaluate_end;
                const int fault =
                    evaluate(launch.program, begin, end, launch.values, clock, Stack{scratch.stack + threadIdx.x}, row);
                if (fault != VALID) atomicMin(&scratch.fault, static_cast<uint64>(cohort) << 32 | fault);
                if (!first) break;
                tick(own, clock, row);
            }
        }
    }
    __syncthreads();
}

// May this step be applied? Fresh rows carry half of the answer. Stale ones (the host has changed something) every
// block puts out for itself, before any block writes a parameter: all of them the same bits, so it does not matter
// whose are read. The gradients carry the other half.
__device__ __forceinline__ Verdict judge(const Launch& launch, Scratch& scratch) {
    bool is_at_fault = launch.progress->fault_cohort != VALID;
    if (launch.progress->prepared != launch.revision->number) {
        put_out_rows(launch, false, scratch);
        is_at_fault = scratch.fault != NO_FAULT;
    }
    if (is_at_fault) return HOLD;
    return must_skip(launch) ? SKIP : APPLY;
}

// Coefficients stay double up to here and are rounded once to the rule's type, a lane each; in shared memory they take
// no registers. The first one is the factor of the gradient, which unscaling and clipping multiply.
__device__ __forceinline__ void round_row(const Launch& launch, const Tensor& tensor, int warp, Scratch& scratch) {
    const int lane = threadIdx.x % WARP;
    const double* row = row_of(launch, tensor.cohort);
    __syncwarp();
    if (lane < COEFFICIENTS) {
        double value = __ldcg(row + lane);
        if (lane == 0) value *= gradient_factor(launch, tensor, __ldcg(row + COEFFICIENTS));
        reinterpret_cast<Compute*>(&scratch.coefficients[warp])[lane] = static_cast<Compute>(value);
    }
    if (lane == 0) {
        scratch.cohort[warp] = tensor.cohort;
        scratch.scope[warp] = tensor.scope;
    }
    __syncwarp();
}

__device__ __forceinline__ void move_average(Compute& average, Compute weight, Compute share) {
    average = average + share * (weight - average);
}
__device__ __forceinline__ void move_average(Absent&, Compute, Compute) {}

// The arrays of a tensor from element `begin` on.
struct Arrays {
    Array<PARAM> param;
    Array<GRAD> grad;
    Array<COMPANION> companion;
    Array<EMA> ema;
    Array<STATE0> state0;
    Array<STATE1> state1;
    Array<STATE2> state2;

    __device__ __forceinline__ Arrays(const Tensor& tensor, int64 begin)
        : param(tensor.param, tensor.numel, begin),
          grad(tensor.grad, tensor.numel, begin),
          companion(tensor.companion, tensor.numel, begin),
          ema(tensor.ema, tensor.numel, begin),
          state0(tensor.states[0], tensor.numel, begin),
          state1(tensor.states[1], tensor.numel, begin),
          state2(tensor.states[2], tensor.numel, begin) {}
};

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
        Compute grad = static_cast<Compute>(Format<GRAD>::value(grads.element[j])) * c.rule.grad_factor;
        grad = grad > c.clip_value ? c.clip_value : grad;
        grad = grad < -c.clip_value ? -c.clip_value : grad;
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
    const int warp = threadIdx.x / WARP;
    const int64 begin = static_cast<int64>(chunk.index) * CHUNK;
    if (tensor.cohort != scratch.cohort[warp] || tensor.scope != scratch.scope[warp])
        round_row(launch, tensor, warp, scratch);
    const uint64 key =
        DRAWS ? rounding::chunk_key(launch.scalars->seed, launch.clocks[tensor.cohort].step, chunk.tensor, chunk.index)
              : 0;
    const Arrays arrays(tensor, begin);
    const Coefficients& c = scratch.coefficients[warp];
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

// A block takes a contiguous range of chunks, its warps take them in turn.
template <typename Visit>
__device__ __forceinline__ void visit_chunks(const Launch& launch, const Visit& visit) {
    const int begin = blockIdx.x * launch.chunks_per_block;
    const int end = min(begin + launch.chunks_per_block, launch.chunk_count);
#pragma unroll 1
    for (int row = begin + threadIdx.x / WARP; row < end; row += WARPS) {
        const Chunk chunk = global(launch.chunks)[row];
        const Tensor& tensor = global(launch.tensors)[chunk.tensor];
        if (tensor.grad != 0) visit(tensor, chunk);
    }
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
    if constexpr (HAS_CODES) {
        for (int i = threadIdx.x; i < 2 * CODES; i += BLOCK) scratch.codes[i] = launch.codes[i];
        __syncthreads();
    }
    const Verdict found = judge(launch, scratch);
    Verdict& verdict = scratch.verdict;  // where it takes no register from the loop over chunks
    if (threadIdx.x == 0) verdict = found;
    if (found == APPLY) {
        if (threadIdx.x % WARP == 0) scratch.cohort[threadIdx.x / WARP] = -1;
        __syncwarp();
        visit_chunks(launch, [&](const auto&... of) { update_chunk(launch, of..., scratch); });
    } else if (ZERO_GRADS && found == SKIP) {
        visit_chunks(launch, [](const auto&... of) { clear_chunk(of...); });
    }
    if (is_last_block(launch, scratch)) prepare_next(launch, verdict, scratch);
}
