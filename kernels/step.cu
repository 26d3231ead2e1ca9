// THE launch: one optimizer step over any number of tensors, schedules included.
//
// Compiled once a specialisation, with these names given by the compiler's options:
//   KERNEL  the kernel's name            RULE    a rule of rules.cuh
//   PARAM   storage type of parameters   GRAD    storage type of gradients
//   STATE0, STATE1, STATE2               storage types of the rule's states, or Absent
//   BLOCK   threads of a block           RESIDENT  blocks that an SM is to hold at once
//
// The data flow: are the rows fresh? -> every warp updates its chunks -> the last block ticks the clocks and puts out
// the rows that the next launch reads.
#include "program.cuh"
#include "rules.cuh"

using Compute = Format<PARAM>::Compute;

constexpr uint64 NO_FAULT = ~0ull;

struct Scratch {
    double stack[STACK_SIZE * EVALUATORS];
    RULE<Compute> coefficients[WARPS];
    uint64 fault;  // of the rows put out last: NO_FAULT, or the first cohort at fault (high word) and its instruction
    int last;
};

__device__ __forceinline__ double* row_of(const Launch& launch, int cohort) {
    return launch.rows + static_cast<int64>(cohort) * ROW;
}

__device__ __forceinline__ void tick(const Cohort& own, Clock& clock, const double* next) {
    if (own.active) {
        for (int i = 0; i < own.accumulators; ++i) clock.accumulators[i] = next[i];
        clock.updates += 1;
    }
    clock.step += 1;
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
            for (int pass = ticks ? 0 : 1; pass < 2; ++pass) {
                const int begin = pass == 0 ? own.evaluate_end : own.evaluate_begin;
                const int end = pass == 0 ? own.advance_end : own.evaluate_end;
                const int fault =
                    evaluate(launch.program, begin, end, launch.values, clock, Stack{scratch.stack + threadIdx.x}, row);
                if (pass == 0) tick(own, clock, row);
                if (fault != VALID) atomicMin(&scratch.fault, static_cast<uint64>(cohort) << 32 | fault);
            }
        }
    }
    __syncthreads();
}

// May this step be applied? Fresh rows carry the answer. Stale ones (the host has changed something) every block puts
// out for itself, before any block writes a parameter: all of them the same bits, so it does not matter whose are read.
__device__ __forceinline__ bool must_hold(const Launch& launch, Scratch& scratch) {
    if (launch.progress->prepared == launch.revision->number) return launch.progress->fault_cohort != VALID;
    put_out_rows(launch, false, scratch);
    return scratch.fault != NO_FAULT;
}

// Coefficients stay double up to here and are rounded once to the rule's type, a lane each; in shared memory they take
// no registers.
__device__ __forceinline__ void round_row(const double* row, RULE<Compute>& coefficients) {
    const int lane = threadIdx.x % WARP;
    __syncwarp();
    if (lane < static_cast<int>(sizeof(coefficients) / sizeof(Compute)))
        reinterpret_cast<Compute*>(&coefficients)[lane] = static_cast<Compute>(__ldcg(row + lane));
    __syncwarp();
}

// Elements [begin, begin + count) of a tensor, a granule a lane at a time.
template <int SIZE>
__device__ __forceinline__ void update_range(const Tensor& tensor, int64 begin, int count,
                                             const RULE<Compute>& coefficients) {
    const Array<PARAM, SIZE> params(tensor.param, begin);
    const Array<GRAD, SIZE> grads(tensor.grad, begin);
    const Array<STATE0, SIZE> states0(tensor.states[0], begin);
    const Array<STATE1, SIZE> states1(tensor.states[1], begin);
    const Array<STATE2, SIZE> states2(tensor.states[2], begin);
#pragma unroll 1
    for (int i = threadIdx.x % WARP; i < count / SIZE; i += WARP) {
        auto param = params.load(i);
        const auto grad = grads.load(i);
        auto state0 = states0.load(i);
        auto state1 = states1.load(i);
        auto state2 = states2.load(i);
#pragma unroll
        for (int j = 0; j < SIZE; ++j)
            coefficients.update(param.element[j], grad.element[j], state0.element[j], state1.element[j],
                                state2.element[j]);
        params.store(i, param);
        states0.store(i, state0);
        states1.store(i, state1);
        states2.store(i, state2);
    }
}

// Whole granules in wide accesses; the edge, and tensors that start off a 16-byte boundary, element by element.
__device__ __forceinline__ void update_chunk(const Tensor& tensor, int32 index, const RULE<Compute>& coefficients) {
    constexpr int WIDE = wide_granule<PARAM, GRAD, STATE0, STATE1, STATE2>();
    const int64 begin = static_cast<int64>(index) * CHUNK;
    const int count = tensor.numel - begin < CHUNK ? static_cast<int>(tensor.numel - begin) : CHUNK;
    const int whole = tensor.wide ? count - count % WIDE : 0;
    update_range<WIDE>(tensor, begin, whole, coefficients);
    update_range<1>(tensor, begin + whole, count - whole, coefficients);
}

// A block takes a contiguous range of chunks, its warps take them in turn.
__device__ __forceinline__ void update_chunks(const Launch& launch, Scratch& scratch) {
    const int warp = threadIdx.x / WARP;
    const int begin = blockIdx.x * launch.chunks_per_block;
    const int end = min(begin + launch.chunks_per_block, launch.chunk_count);
    int cohort = -1;
    for (int row = begin + warp; row < end; row += WARPS) {
        const Chunk chunk = global(launch.chunks)[row];
        const Tensor& tensor = global(launch.tensors)[chunk.tensor];
        if (tensor.grad == 0) continue;
        if (tensor.cohort != cohort) {
            cohort = tensor.cohort;
            round_row(row_of(launch, cohort), scratch.coefficients[warp]);
        }
        update_chunk(tensor, chunk.index, scratch.coefficients[warp]);
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

// Tick the clocks, unless the step was held, and put out the rows of the next one. A row out of range is a fault: it
// holds the steps to come until the host changes something.
__device__ __forceinline__ void prepare_next(const Launch& launch, bool hold, Scratch& scratch) {
    put_out_rows(launch, !hold, scratch);
    if (threadIdx.x != 0) return;
    Progress& progress = *launch.progress;
    progress.fault_cohort = scratch.fault == NO_FAULT ? VALID : static_cast<int32>(scratch.fault >> 32);
    progress.fault_index = static_cast<int32>(scratch.fault);
    progress.prepared = launch.revision->number;
    progress.ticket = 0;
}

extern "C" __global__ void __launch_bounds__(BLOCK, RESIDENT) KERNEL(const __grid_constant__ Launch launch) {
    __shared__ Scratch scratch;
    const bool hold = must_hold(launch, scratch);
    if (!hold) update_chunks(launch, scratch);
    if (is_last_block(launch, scratch)) prepare_next(launch, hold, scratch);
}
