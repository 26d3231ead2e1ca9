// What the launches over elements share: may the step be applied, coefficients in the rule's type, a warp's chunks.
// The compiler's options are those of step.cu.
#pragma once

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
    Coefficients coefficients[WARPS];  // those that a warp holds, and whose they are
    int cohort[WARPS];
    int own[WARPS];
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

// The values of 8-bit codes, which every lane looks up, into shared memory.
__device__ __forceinline__ void load_codes(const Launch& launch, Scratch& scratch) {
    if constexpr (HAS_CODES) {
        for (int i = threadIdx.x; i < 2 * CODES; i += BLOCK) scratch.codes[i] = launch.codes[i];
        __syncthreads();
    }
}

// A warp holds none yet.
__device__ __forceinline__ void forget_coefficients(Scratch& scratch) {
    if (threadIdx.x % WARP == 0) scratch.cohort[threadIdx.x / WARP] = -1;
    __syncwarp();
}

// Coefficients stay double up to here and are rounded once to the rule's type, a lane each; in shared memory they take
// no registers. The first one is the factor of the gradient, which unscaling and clipping multiply; the size of a step
// that was measured is multiplied by the trust ratio of the tensor. `own`: whose coefficients they are in its cohort.
__device__ __forceinline__ void round_row(const Launch& launch, const Tensor& tensor, int own, const double* trusts,
                                          Scratch& scratch) {
    const int lane = threadIdx.x % WARP;
    const int warp = threadIdx.x / WARP;
    const double* row = row_of(launch, tensor.cohort);
    __syncwarp();
    if (lane < COEFFICIENTS) {
        double value = __ldcg(row + lane);
        if (lane == 0) value *= gradient_factor(launch, tensor, __ldcg(row + COEFFICIENTS));
        if (lane == STEP_SIZE && trusts) value *= __ldcg(trusts + own);
        reinterpret_cast<Compute*>(&scratch.coefficients[warp])[lane] = static_cast<Compute>(value);
    }
    if (lane == 0) {
        scratch.cohort[warp] = tensor.cohort;
        scratch.own[warp] = own;
    }
    __syncwarp();
}

// The coefficients for a chunk, rounded anew where those that the warp holds may be others: the tensors of a cohort
// share them but for the norm by which they are clipped, or, if `trusts` are given, for their trust ratios.
__device__ __forceinline__ const Coefficients& coefficients_of(const Launch& launch, const Tensor& tensor,
                                                               const Chunk& chunk, const double* trusts,
                                                               Scratch& scratch) {
    const int warp = threadIdx.x / WARP;
    const int own = trusts ? chunk.tensor : tensor.scope;
    if (tensor.cohort != scratch.cohort[warp] || own != scratch.own[warp])
        round_row(launch, tensor, own, trusts, scratch);
    return scratch.coefficients[warp];
}

// The gradient as the rule sees it: in the scale of the loss itself, and clipped.
__device__ __forceinline__ Compute scaled_and_clipped(GRAD stored, const Coefficients& c) {
    Compute grad = static_cast<Compute>(Format<GRAD>::value(stored)) * c.rule.grad_factor;
    grad = grad > c.clip_value ? c.clip_value : grad;
    return grad < -c.clip_value ? -c.clip_value : grad;
}

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

// A block takes a contiguous range of chunks, its warps take them in turn.
template <typename Visit>
__device__ __forceinline__ void visit_chunks(const Launch& launch, const Visit& visit) {
    const int begin = blockIdx.x * launch.chunks_per_block;
    const int end = min(begin + launch.chunks_per_block, launch.chunk_count);
#pragma unroll 1
    for (int row = begin + threadIdx.x / WARP; row < end; row += WARPS) {
        const Chunk chunk = global(launch.chunks)[row];
        const Tensor& tensor = global(launch.tensors)[chunk.tensor];
        if (tensor.grad != 0) visit(tensor, chunk, row);
    }
}
