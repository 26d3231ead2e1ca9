// The tables that the host writes and the kernels read (twin of tables.py, whose dtypes have the same offsets).
#pragma once

using int32 = int;
using uint32 = unsigned int;
using int64 = long long;
using uint64 = unsigned long long;

constexpr int WARP = 32;
constexpr int WARPS = BLOCK / WARP;
constexpr int CHUNK = 1024;  // elements that a row of the chunk table stands for: what a warp takes at a time
constexpr int MAX_STATES = 4;
constexpr int MAX_ACCUMULATORS = 4;
constexpr int ROW = 32;         // doubles a cohort's program may put out: coefficients first, then hyperparameters
constexpr int STACK_SIZE = 64;  // doubles an evaluation may hold
constexpr int EVALUATORS = WARP;

// One parameter: addresses of its arrays (0: absent; a gradient that is absent means that the tensor rests).
struct Tensor {
    uint64 param;
    uint64 grad;
    uint64 states[MAX_STATES];
    int64 numel;
    int32 cohort;
    int32 wide;  // 1: every array starts on a 16-byte boundary
};
static_assert(sizeof(Tensor) == 64);

// Elements [index * CHUNK, (index + 1) * CHUNK) of one tensor. Empty tensors have no row.
struct Chunk {
    int32 tensor;
    int32 index;
};
static_assert(sizeof(Chunk) == 8);

// Tensors of one group with the same history: [evaluate_begin, evaluate_end) puts out its row,
// [evaluate_end, advance_end) the next values of its accumulators.
struct Cohort {
    int32 evaluate_begin;
    int32 evaluate_end;
    int32 advance_end;
    int32 accumulators;  // how many it has
    int32 active;        // 0: its tensors have no gradient this time; only `step` ticks
    int32 unused;
};
static_assert(sizeof(Cohort) == 24);

// The clock of a cohort. `step` is what schedules read, `updates` what bias corrections read.
struct Clock {
    int64 step;
    int64 updates;
    double accumulators[MAX_ACCUMULATORS];
};
static_assert(sizeof(Clock) == 48);

struct Instruction {
    int32 op;
    int32 argument;
};
static_assert(sizeof(Instruction) == 8);

// Written by the host alone, whenever it has changed a table.
struct Revision {
    int64 number;
    int32 cohort_count;
    int32 unused;
};
static_assert(sizeof(Revision) == 16);

// Written by the device alone, like clocks and rows.
struct Progress {
    int64 prepared;      // the revision for which rows and fault hold; another one: the rows are stale
    int32 fault_cohort;  // VALID, or the first cohort whose next row is out of range: such a step is held
    int32 fault_index;   // the instruction that says so
    uint32 ticket;       // blocks that have finished this step
    int32 unused;
};
static_assert(sizeof(Progress) == 24);

// The only kernel argument. Nothing in it depends on the step, so a captured graph replays a whole schedule.
struct Launch {
    const Tensor* tensors;
    const Chunk* chunks;
    const Cohort* cohorts;
    Clock* clocks;
    double* rows;  // [cohorts, ROW], made by the last block of the step before
    const Instruction* program;
    const double* values;
    const Revision* revision;
    Progress* progress;
    int32 chunk_count;
    int32 chunks_per_block;
    uint32 blocks;  // of all launches of one step: they share the ticket, so only the very last block ticks
    int32 unused;
};
static_assert(sizeof(Launch) == 88);
