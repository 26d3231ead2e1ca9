// The tables that the host writes and the kernels read (twin of tables.py, whose dtypes have the same offsets).
#pragma once

using int32 = int;
using uint32 = unsigned int;
using int64 = long long;
using uint64 = unsigned long long;

constexpr int WARP = 32;
constexpr int WARPS = BLOCK / WARP;
constexpr int CHUNK = 1024;  // elements that a row of the chunk table stands for: what a warp takes at a time
constexpr int SPAN = 256;    // chunks whose sums are folded at once
constexpr int RULE_STATES = 3;
constexpr int MAX_ACCUMULATORS = 4;
constexpr int ROW = 32;         // doubles a cohort's program may put out: coefficients first, then hyperparameters
constexpr int STACK_SIZE = 64;  // doubles an evaluation may hold
constexpr int EVALUATORS = WARP;
constexpr int NO_SCOPE = -1;
constexpr int STEP_SIZE = 1;    // place of the coefficient that the trust ratio multiplies,
constexpr int TRUST_LIMIT = 2;  // and of the largest ratio, or 0: 1 is the ratio. Rules that are measured have them.

// How the elements of a gradient are stored, for kernels that serve all formats.
enum GradFormat : int { FLOAT32, FLOAT64, FLOAT16, BFLOAT16 };

// One parameter: addresses of its arrays (0: absent; a gradient that is absent means that the tensor rests).
struct Tensor {
    uint64 param;
    uint64 grad;
    uint64 states[RULE_STATES];
    uint64 companion;  // what a 16-bit parameter leaves out: a float32 master, or the low 16 bits
    uint64 ema;        // exponential moving average of the parameter
    int64 numel;
    int32 cohort;
    int32 scope;  // the scope whose norm its gradient is clipped by, or NO_SCOPE
    int32 grad_format;
    int32 wide;  // 1: every array starts on a 16-byte boundary
};
static_assert(sizeof(Tensor) == 80);

// Elements [index * CHUNK, (index + 1) * CHUNK) of one tensor. Empty tensors have no row.
struct Chunk {
    int32 tensor;
    int32 index;
    int32 span;  // the span whose sum it belongs to
    int32 part;  // up to SPAN chunks of one tensor, numbered through all tensors: whose norms it belongs to
};
static_assert(sizeof(Chunk) == 16);

// Up to SPAN neighbouring rows of the chunk table, all of one scope.
struct Span {
    int32 first;
    int32 count;
    int32 scope;
    int32 unused;
};
static_assert(sizeof(Span) == 16);

// Tensors whose gradients have one norm: neighbouring rows of the span table.
struct Scope {
    int32 first;
    int32 count;
};
static_assert(sizeof(Scope) == 8);

// Tensors of one group with the same history: [evaluate_begin, evaluate_end) puts out its row,
// [evaluate_end, advance_end) the next values of its accumulators.
struct Cohort {
    int32 evaluate_begin;
    int32 evaluate_end;
    int32 advance_end;
    int32 accumulators;  // how many it has
    int32 counts;        // 1: its updates count; 0: its tensors have no gradient this time
    int32 ticks;         // 1: its step goes on
    int32 mixing;        // where in `values` the number stands with which its weights are mixed, if they are
};
static_assert(sizeof(Cohort) == 28);

// The clock of a cohort. `step` is what schedules read, `updates` what bias corrections read.
struct Clock {
    int64 step;
    int64 updates;
    double lr_scale;
    double accumulators[MAX_ACCUMULATORS];
};
static_assert(sizeof(Clock) == 56);

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

// Written by the host alone: what mixed-precision training says of the gradients. A scalar lies at an address, as a
// float or a double, or, where that is 0, in the record itself.
struct Scalars {
    uint64 grad_scale_at;
    uint64 found_inf_at;
    double grad_scale;
    double found_inf;
    int32 grad_scale_is_double;
    int32 found_inf_is_double;
    int32 skips_nonfinite;  // 1: a step whose gradients are not all finite is skipped
    int32 unused;
    uint64 seed;
};
static_assert(sizeof(Scalars) == 56);

// Written by the device alone, like clocks and rows.
struct Progress {
    int64 prepared;      // the revision for which rows and fault hold; another one: the rows are stale
    int32 fault_cohort;  // VALID, or the first cohort whose next row is out of range: such a step is held
    int32 fault_index;   // the instruction that says so
    int64 skipped;       // steps that were skipped,
    int64 overflowed;    // and of these the ones whose sums were not finite
    uint32 ticket;       // blocks that have finished this step
    uint32 nonfinite;    // 1: the sums found a gradient that is not finite
};
static_assert(sizeof(Progress) == 40);

// The only kernel argument. Nothing in it depends on the step, so a captured graph replays a whole schedule.
struct Launch {
    const Tensor* tensors;
    const Chunk* chunks;
    const Span* spans;
    const Scope* scopes;
    const Cohort* cohorts;
    Clock* clocks;
    double* rows;  // [cohorts, ROW], made by the last block of the step before
    const Instruction* program;
    const double* values;
    const float* codes;  // [2, 256], the values of 8-bit codes: signed, unsigned
    const Revision* revision;
    const Scalars* scalars;
    Progress* progress;
    double* chunk_sums;  // of the squares of the gradients
    double* span_sums;
    double* norms;  // of the scopes
    uint32* span_tickets;
    uint32* scope_tickets;
    double* chunk_norms;  // [chunks of a launch, 2], squared, of the weights and of their updates; for trust ratios
    double* part_norms;   // [parts, 2], likewise
    double* trusts;       // trust ratios of the tensors
    uint32* part_tickets;
    uint32* trust_tickets;
    int32 chunk_count;
    int32 chunks_per_block;
    uint32 blocks;    // of all launches of one step: they share the ticket, so only the very last block ticks
    int32 evaluates;  // of a mixing: 1: weights become what is evaluated, 0: what is trained
};
static_assert(sizeof(Launch) == 200);
