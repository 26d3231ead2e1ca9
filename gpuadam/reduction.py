"""Sums over gradients ahead of a step: their norms, and whether all of them are finite (twin of reduce.cu).

The order of the additions is fixed, whatever the number of threads: element e of a chunk goes to accumulator e % 256;
accumulators, chunks of a span, and spans of a scope are then folded alike. Squares of 16- and 32-bit gradients cannot
overflow in double, so a sum that is not finite says that a gradient is not.
"""

import math
from typing import Any

import numba
import numpy as np

from .access import UNKNOWN, array_at, inverse_scale, table_at
from .formats import FORMATS, GRAD_FORMATS
from .jit import compiled, inlined, prefetch
from .tables import CHUNK, CHUNK_ROW, LAUNCH, PROGRESS, SCOPE, SPAN_ROW, TENSOR

ACCUMULATORS = 256
LANES = 32
LINE = 64  # bytes of a cache line
LARGEST = float(np.finfo(np.float64).max)
FLOAT32, FLOAT64, FLOAT16, BFLOAT16 = range(len(GRAD_FORMATS))


@inlined
def fold(values: Any, lanes: Any) -> Any:
    """Each lane adds every 32nd value in order; then halves are added to halves."""
    lanes[:] = 0.0
    for begin in range(0, len(values), LANES):
        part = values[begin : begin + LANES]  # indices that begin at 0: Numba looks whether others are negative
        for lane in range(len(part)):
            lanes[lane] += part[lane]
    width = LANES // 2
    while width:
        upper = lanes[width : 2 * width]
        for lane in range(width):
            lanes[lane] += upper[lane]
        width //= 2
    return lanes[0]


def make_squares(form: str) -> Any:
    """Add the squares of up to CHUNK gradients of a format to the accumulators."""
    storage, value = FORMATS[form].storage, FORMATS[form].value
    size = storage.itemsize

    @inlined
    def squares(address: Any, first: Any, count: Any, accumulators: Any) -> None:
        grads = array_at(address, first, count, storage)
        for begin in range(0, count, ACCUMULATORS):
            # one stream alone waits for memory: a chunk ahead is asked for, which takes 0.13 ns an element, not 0.30
            ahead = address + (first + begin + CHUNK) * size
            for line in range(0, ACCUMULATORS * size, LINE):
                prefetch(ahead + line)
            part = grads[begin : begin + ACCUMULATORS]
            for lane in range(len(part)):
                grad = np.float64(value(part[lane]))
                accumulators[lane] += grad * grad

    return squares


squares_float32, squares_float64, squares_float16, squares_bfloat16 = map(make_squares, GRAD_FORMATS)


@inlined
def chunk_sum(tensor: Any, index: Any, accumulators: Any, lanes: Any) -> Any:
    """The sum of the squares of one chunk of gradients."""
    accumulators[:] = 0.0
    first = np.int64(index) * CHUNK
    count = min(first + CHUNK, tensor.numel) - first
    address = np.int64(tensor.grad)
    if address == 0:
        return 0.0
    if tensor.grad_format == FLOAT32:
        squares_float32(address, first, count, accumulators)
    elif tensor.grad_format == FLOAT64:
        squares_float64(address, first, count, accumulators)
    elif tensor.grad_format == FLOAT16:
        squares_float16(address, first, count, accumulators)
    else:
        squares_bfloat16(address, first, count, accumulators)
    return fold(accumulators, lanes)


@compiled()
def sum_spans(launch_address: int, begin: int, end: int) -> None:
    """The sums of spans [begin, end), and of their chunks."""
    launch = table_at(launch_address, 1, LAUNCH)[0]
    tensors = table_at(launch.tensors, UNKNOWN, TENSOR)
    chunks = table_at(launch.chunks, UNKNOWN, CHUNK_ROW)
    spans = table_at(launch.spans, end, SPAN_ROW)
    chunk_sums = table_at(launch.chunk_sums, UNKNOWN, np.float64)
    span_sums = table_at(launch.span_sums, end, np.float64)
    accumulators, lanes = np.empty(ACCUMULATORS), np.empty(LANES)
    for i in range(begin, end):
        first, count = np.int64(spans[i].first), np.int64(spans[i].count)
        for row in range(first, first + count):
            chunk_sums[row] = chunk_sum(tensors[chunks[row].tensor], chunks[row].index, accumulators, lanes)
        span_sums[i] = fold(chunk_sums[first : first + count], lanes)


@compiled(parallel=True)
def sum_spans_parallel(launch_address: int, bounds: Any) -> None:
    for thread in numba.prange(len(bounds) - 1):
        sum_spans(launch_address, bounds[thread], bounds[thread + 1])


@compiled()
def fold_scopes(launch_address: int, count: int) -> None:
    """The norm of each scope, in the scale of the loss itself; note if one is not finite."""
    launch = table_at(launch_address, 1, LAUNCH)[0]
    scopes = table_at(launch.scopes, count, SCOPE)
    span_sums = table_at(launch.span_sums, UNKNOWN, np.float64)
    norms = table_at(launch.norms, count, np.float64)
    progress = table_at(launch.progress, 1, PROGRESS)[0]
    lanes = np.empty(LANES)
    inverse = abs(inverse_scale(launch))
    progress.nonfinite = 0
    for i in range(count):
        first = np.int64(scopes[i].first)
        total = fold(span_sums[first : first + np.int64(scopes[i].count)], lanes)
        norms[i] = math.sqrt(total) * inverse
        if not norms[i] <= LARGEST:
            progress.nonfinite = 1
