"""Around the walk on the CPU: may the step be applied, and what follows it (twin of step.cu and walk.cuh)."""

from typing import Any

import numpy as np

from .access import UNKNOWN, read_scalar, table_at
from .compiler import CLOCK, ROW
from .jit import compiled, inlined
from .program import INSTRUCTION, STACK_SIZE, VALID, evaluate
from .tables import CHUNK, CHUNK_ROW, COHORT, LAUNCH, PROGRESS, REVISION, SCALARS, TENSOR


@inlined
def evaluate_rows(launch: Any) -> None:
    """Put out every cohort's row and note the first that is out of range."""
    revision = table_at(launch.revision, 1, REVISION)[0]
    progress = table_at(launch.progress, 1, PROGRESS)[0]
    cohorts = table_at(launch.cohorts, revision.cohort_count, COHORT)
    clocks = table_at(launch.clocks, revision.cohort_count, CLOCK)
    rows = table_at(launch.rows, revision.cohort_count * ROW, np.float64)
    values = table_at(launch.values, UNKNOWN, np.float64)
    program = table_at(launch.program, UNKNOWN, INSTRUCTION)
    stack = np.empty(STACK_SIZE)
    progress.fault_cohort = VALID
    for i in range(revision.cohort_count):
        begin, end = np.int64(cohorts[i].evaluate_begin), np.int64(cohorts[i].evaluate_end)
        fault = evaluate(program, begin, end, values, clocks[i], stack, rows[i * ROW : (i + 1) * ROW])
        if fault != VALID and progress.fault_cohort == VALID:
            progress.fault_cohort = i
            progress.fault_index = fault
    progress.prepared = revision.number


@compiled()
def prepare(launch_address: int) -> bool:
    """Evaluate the rows if the host has changed something. Returns whether the step must be held."""
    launch = table_at(launch_address, 1, LAUNCH)[0]
    progress = table_at(launch.progress, 1, PROGRESS)[0]
    if progress.prepared != table_at(launch.revision, 1, REVISION)[0].number:
        evaluate_rows(launch)
    return progress.fault_cohort != VALID  # type: ignore[no-any-return]


@compiled()
def must_skip(launch_address: int) -> tuple[bool, bool]:
    """Whether the gradients forbid this step, and whether by their sums; if so it is counted as skipped."""
    launch = table_at(launch_address, 1, LAUNCH)[0]
    scalars = table_at(launch.scalars, 1, SCALARS)[0]
    progress = table_at(launch.progress, 1, PROGRESS)[0]
    is_found = read_scalar(scalars.found_inf_at, scalars.found_inf_is_double, scalars.found_inf) != 0.0
    overflows = scalars.skips_nonfinite != 0 and progress.nonfinite != 0
    progress.nonfinite = 0
    progress.skipped += is_found or overflows
    progress.overflowed += overflows
    return is_found or overflows, overflows


@compiled()
def finish(launch_address: int) -> None:
    """Tick the clocks and put out the rows of the next step: what the last block does on a GPU."""
    launch = table_at(launch_address, 1, LAUNCH)[0]
    count = table_at(launch.revision, 1, REVISION)[0].cohort_count
    cohorts = table_at(launch.cohorts, count, COHORT)
    clocks = table_at(launch.clocks, count, CLOCK)
    values = table_at(launch.values, UNKNOWN, np.float64)
    program = table_at(launch.program, UNKNOWN, INSTRUCTION)
    stack, following = np.empty(STACK_SIZE), np.empty(ROW)
    for i in range(count):
        if cohorts[i].counts:
            begin, end = np.int64(cohorts[i].evaluate_end), np.int64(cohorts[i].advance_end)
            evaluate(program, begin, end, values, clocks[i], stack, following)
            for j in range(cohorts[i].accumulators):
                clocks[i].accumulators[j] = following[j]
            clocks[i].updates += 1
        clocks[i].step += cohorts[i].ticks
    evaluate_rows(launch)


@compiled()
def clear_gradients(launch_address: int, begin: int, end: int, size: int) -> None:
    """Leave the gradients of rows [begin, end) of the chunk table zero; an element has `size` bytes."""
    launch = table_at(launch_address, 1, LAUNCH)[0]
    chunks = table_at(launch.chunks, end, CHUNK_ROW)
    tensors = table_at(launch.tensors, UNKNOWN, TENSOR)
    for row in range(begin, end):
        tensor, first = tensors[chunks[row].tensor], np.int64(chunks[row].index) * CHUNK
        if tensor.grad != 0:
            grads = table_at(tensor.grad + np.uint64(first * size), CHUNK * size, np.uint8)
            for i in range(min(CHUNK, tensor.numel - first) * size):
                grads[i] = 0
