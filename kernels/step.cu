// THE launch: one optimizer step over any number of tensors, schedules included.
//
// Compiled once a specialisation, with these names given by the compiler's options:
//   KERNEL  the kernel's name            RULE    a rule of rules.cuh
//   PARAM   storage type of parameters   GRAD    storage type of gradients
//   STATE0, STATE1, STATE2               storage types of the rule's states, or Absent
//
// The data flow: are the rows fresh? -> every warp updates its chunks -> the last block ticks the clocks and puts out
// the rows that the next launch reads.
#include "program.cuh"
#include "rules.cuh"

using Compute = Format<PARAM>::Compute;

struct Scratch {
    double stack[STACK_SIZE * EVALUATORS];
    double rows[EVALUATORS][ROW];
    int fault_cohort[EVALUATORS];
    int fault_index[EVALUATORS];
    int hold;
    int last;
};

__device__ inline int evaluate_cohort(const Launch& launch, int cohort, Scratch& scratch, int evaluator, double* row) {
    const Cohort& own = launch.cohorts[cohort];
    return evaluate(launch.program, own.evaluate_begin, own.evaluate_end, launch.values, launch.clocks[cohort],
                    Stack{scratch.stack + evaluator}, row);
}

// May this step be applied? Fresh rows carry the answer; stale ones (the host has changed something) are checked here,
// by every block alike, before any block writes.
__device__ inline bool must_hold(const Launch& launch, bool fresh, Scratch& scratch) {
    if (threadIdx.x == 0) scratch.hold = fresh && launch.progress->fault_cohort != VALID;
    __syncthreads();
    if (!fresh && threadIdx.x < EVALUATORS) {
        for (int cohort = threadIdx.x; cohort < launch.revision->cohort_count; cohort += EVALUATORS)
            if (evaluate_cohort(launch, cohort, scratch, threadIdx.x, scratch.rows[threadIdx.x]) != VALID)
                atomicOr(&scratch.hold, 1);
    }
    __syncthreads();
    return scratch.hold;
}

// Coefficients stay double up to here and are rounded once to the rule's type.
__device__ __forceinline__ void round_row(const double* row, RULE<Compute>& coefficients) {
    auto* field = reinterpret_cast<Compute*>(&coefficients);
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(coefficients) / sizeof(Compute)); ++i)
        field[i] = static_cast<Compute>(row[i]);
}

// The warp's coefficients for a cohort: from the table if it is fresh, else evaluated here: the same bits.
__device__ inline void read_coefficients(const Launch& launch, int cohort, bool fresh, Scratch& scratch,
                                         RULE<Compute>& coefficients) {
    if (fresh) return round_row(launch.rows + static_cast<int64>(cohort) * ROW, coefficients);
    const int warp = threadIdx.x / WARP;
    __syncwarp();
    if (threadIdx.x % WARP == 0) evaluate_cohort(launch, cohort, scratch, warp, scratch.rows[warp]);
    __syncwarp();
    round_row(scratch.rows[warp], coefficients);
}

template <bool IS_WIDE>
__device__ __forceinline__ void update_tile(const Tensor& tensor, int64 first, int count, int lane,
                                            const RULE<Compute>& coefficients) {
    Tile<PARAM> param;
    Tile<GRAD> grad;
    Tile<STATE0> state0;
    Tile<STATE1> state1;
    Tile<STATE2> state2;
    if constexpr (IS_WIDE) {
        param.load_wide(tensor.param, first, lane);
        grad.load_wide(tensor.grad, first, lane);
        state0.load_wide(tensor.states[0], first, lane);
        state1.load_wide(tensor.states[1], first, lane);
        state2.load_wide(tensor.states[2], first, lane);
    } else {
        param.load_edge(tensor.param, first, lane, count);
        grad.load_edge(tensor.grad, first, lane, count);
        state0.load_edge(tensor.states[0], first, lane, count);
        state1.load_edge(tensor.states[1], first, lane, count);
        state2.load_edge(tensor.states[2], first, lane, count);
    }
#pragma unroll
    for (int i = 0; i < LANE_ELEMENTS; ++i)
        coefficients.update(param.element[i], grad.element[i], state0.element[i], state1.element[i], state2.element[i]);
    if constexpr (IS_WIDE) {
        param.store_wide(tensor.param, first, lane);
        state0.store_wide(tensor.states[0], first, lane);
        state1.store_wide(tensor.states[1], first, lane);
        state2.store_wide(tensor.states[2], first, lane);
    } else {
        param.store_edge(tensor.param, first, lane, count);
        state0.store_edge(tensor.states[0], first, lane, count);
        state1.store_edge(tensor.states[1], first, lane, count);
        state2.store_edge(tensor.states[2], first, lane, count);
    }
}

__device__ __forceinline__ void update_chunk(const Tensor& tensor, int32 index, const RULE<Compute>& coefficients) {
    const int lane = threadIdx.x % WARP;
    const int64 begin = static_cast<int64>(index) * CHUNK;
    const int64 end = begin + CHUNK < tensor.numel ? begin + CHUNK : tensor.numel;
    for (int64 first = begin; first < end; first += TILE) {
        if (tensor.wide && first + TILE <= end)
            update_tile<true>(tensor, first, TILE, lane, coefficients);
        else
            update_tile<false>(tensor, first, static_cast<int>(end - first), lane, coefficients);
    }
}

// A block takes a contiguous range of chunks, its warps take them in turn.
__device__ __forceinline__ void update_chunks(const Launch& launch, bool fresh, Scratch& scratch) {
    const int64 begin = launch.chunk_count * blockIdx.x / gridDim.x;
    const int64 end = launch.chunk_count * (blockIdx.x + 1) / gridDim.x;
    RULE<Compute> coefficients;
    int cohort = -1;
    for (int64 row = begin + threadIdx.x / WARP; row < end; row += WARPS) {
        const Chunk chunk = launch.chunks[row];
        const Tensor tensor = launch.tensors[chunk.tensor];
        if (tensor.grad == 0) continue;
        if (tensor.cohort != cohort) {
            cohort = tensor.cohort;
            read_coefficients(launch, cohort, fresh, scratch, coefficients);
        }
        update_chunk(tensor, chunk.index, coefficients);
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

__device__ inline void tick(const Launch& launch, int cohort, Scratch& scratch, int evaluator) {
    const Cohort& own = launch.cohorts[cohort];
    Clock& clock = launch.clocks[cohort];
    if (own.active) {
        double* next = scratch.rows[evaluator];
        evaluate(launch.program, own.evaluate_end, own.advance_end, launch.values, clock,
                 Stack{scratch.stack + evaluator}, next);
        for (int i = 0; i < own.accumulators; ++i) clock.accumulators[i] = next[i];
        clock.updates += 1;
    }
    clock.step += 1;
}

// Tick the clocks, unless the step was held, and put out the rows of the next step. A row out of range is a fault: it
// holds the steps to come until the host changes something.
__device__ inline void prepare_next(const Launch& launch, bool hold, Scratch& scratch) {
    const int evaluator = threadIdx.x;
    if (evaluator < EVALUATORS) {
        scratch.fault_cohort[evaluator] = VALID;
        for (int cohort = evaluator; cohort < launch.revision->cohort_count; cohort += EVALUATORS) {
            if (!hold) tick(launch, cohort, scratch, evaluator);
            const int fault =
                evaluate_cohort(launch, cohort, scratch, evaluator, launch.rows + static_cast<int64>(cohort) * ROW);
            if (fault != VALID && scratch.fault_cohort[evaluator] == VALID) {
                scratch.fault_cohort[evaluator] = cohort;
                scratch.fault_index[evaluator] = fault;
            }
        }
    }
    __syncthreads();
    if (evaluator != 0) return;
    Progress& progress = *launch.progress;
    progress.fault_cohort = VALID;
    for (int other = 0; other < EVALUATORS; ++other) {
        const int cohort = scratch.fault_cohort[other];
        if (cohort != VALID && (progress.fault_cohort == VALID || cohort < progress.fault_cohort)) {
            progress.fault_cohort = cohort;
            progress.fault_index = scratch.fault_index[other];
        }
    }
    progress.prepared = launch.revision->number;
    progress.ticket = 0;
}

extern "C" __global__ void __launch_bounds__(BLOCK, sizeof(Compute) == 4 ? 2 : 1) KERNEL(const Launch launch) {
    __shared__ Scratch scratch;
    const bool fresh = launch.progress->prepared == launch.revision->number;
    const bool hold = must_hold(launch, fresh, scratch);
    if (!hold) update_chunks(launch, fresh, scratch);
    if (is_last_block(launch, scratch)) prepare_next(launch, hold, scratch);
}
