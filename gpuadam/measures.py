"""The norms of each tensor's weights and of their updates, ahead of a step: its trust ratio (twin of measure.cu).

They are summed in the order of `reduction`: chunks make up parts of one tensor, parts the tensor. The numbers of a
chunk are kept before they are squared: two short loops become vector code, one does not (0.7 ns an element, not 4).
"""

import functools
import math
from typing import Any

import numba
import numpy as np
from numba.np.unsafe.ndarray import to_fixed_tuple

from .access import UNKNOWN, array_at, load, table_at
from .compiler import ROW
from .formats import COMPANION_STORAGE, FORMATS, Specialisation
from .jit import compiled, inlined, kept
from .reduction import ACCUMULATORS, LANES, fold
from .rules import with_all_states
from .states import make_buffer, make_states
from .sweeps import make_weight, round_row, scaled_and_clipped, sweep_type
from .tables import CHUNK, CHUNK_ROW, LAUNCH, SPAN, TENSOR, TRUST_LIMIT


def make_directions(kind: Specialisation) -> Any:
    """The weights of a chunk and their updates, as numbers; it goes the way of `make_update`."""
    direction = with_all_states(kind.rule, kind.rule.measure)
    param_dtype, grad_dtype = FORMATS[kind.param].storage, FORMATS[kind.grad].storage
    companion_dtype = COMPANION_STORAGE[kind.companion]
    compute: Any = FORMATS[kind.compute].storage.type
    grad_value = FORMATS[kind.grad].value
    read_weight, _ = make_weight(kind)
    open_states, (value0, value1, value2), _, _ = make_states(kind)

    @inlined
    def directions(tensor: Any, first: Any, count: Any, c: Any, clip: Any, buffers: Any, found: Any) -> None:
        weights, updates = found
        params = array_at(np.int64(tensor.param), first, count, param_dtype)
        grads = array_at(np.int64(tensor.grad), first, count, grad_dtype)
        companions = array_at(np.int64(tensor.companion), first, count, companion_dtype)
        states0, states1, states2 = open_states(tensor, first, count, buffers)
        for i in range(count):
            grad = scaled_and_clipped(compute(grad_value(grads[i])), c.grad_factor, clip)
            weight = read_weight(params[i], load(companions, i))
            states = value0(load(states0, i)), value1(load(states1, i)), value2(load(states2, i))
            weights[i] = weight
            updates[i] = direction(weight, grad, states[0], states[1], states[2], c)[0]

    return directions


@inlined
def sum_of_squares(values: Any, accumulators: Any, lanes: Any) -> float:
    """That of a chunk, as `reduction` sums gradients."""
    accumulators[:] = 0.0
    for begin in range(0, len(values), ACCUMULATORS):
        part = values[begin : begin + ACCUMULATORS]
        for lane in range(len(part)):
            value = np.float64(part[lane])
            accumulators[lane] += value * value
    return fold(accumulators, lanes)  # type: ignore[no-any-return]


@functools.cache
def make_measure(kind: Specialisation) -> Any:
    """Compile the squared norms of chunks [begin, end) for one specialisation."""
    directions, new_buffer = make_directions(kind), make_buffer(kind)
    row_type, compute = kind.rule.row, FORMATS[kind.compute].storage
    size: int = len(row_type._fields)  # type: ignore[attr-defined]

    def measure(launch_address: int, begin: int, end: int) -> None:
        launch = table_at(launch_address, 1, LAUNCH)[0]
        chunks = table_at(launch.chunks, end, CHUNK_ROW)
        tensors = table_at(launch.tensors, UNKNOWN, TENSOR)
        norms = table_at(launch.chunk_norms, 2 * end, np.float64)
        buffers = new_buffer(), new_buffer(), new_buffer()
        rounded, weights, updates = np.empty(size + 2, compute), np.empty(CHUNK, compute), np.empty(CHUNK, compute)
        accumulators, lanes = np.empty(ACCUMULATORS), np.empty(LANES)
        for row in range(begin, end):
            tensor, first = tensors[chunks[row].tensor], np.int64(chunks[row].index) * CHUNK
            if tensor.grad != 0:
                round_row(launch, tensor, rounded, size + 2)
                c = row_type(*to_fixed_tuple(rounded, size))
                count = min(first + CHUNK, tensor.numel) - first
                directions(tensor, first, count, c, rounded[size], buffers, (weights, updates))
                norms[2 * row] = sum_of_squares(weights[:count], accumulators, lanes)
                norms[2 * row + 1] = sum_of_squares(updates[:count], accumulators, lanes)

    return kept(functools.partial(numba.cfunc, sweep_type, error_model="numpy"), measure)


@inlined
def trust_ratio(weight: Any, update: Any, limit: Any) -> Any:
    """How far along its update a tensor goes, from squared norms; a limit of 0 says that it is not adapted."""
    if limit == 0.0 or not (weight > 0.0 and update > 0.0):
        return 1.0
    ratio = math.sqrt(weight) / math.sqrt(update)
    return limit if ratio > limit else ratio


@compiled()
def fold_tensors(launch_address: int, begin: int, end: int) -> None:
    """The trust ratios of the tensors whose chunks are rows [begin, end)."""
    launch = table_at(launch_address, 1, LAUNCH)[0]
    chunks = table_at(launch.chunks, end, CHUNK_ROW)
    tensors = table_at(launch.tensors, UNKNOWN, TENSOR)
    rows = table_at(launch.rows, UNKNOWN, np.float64)
    chunk_norms = table_at(launch.chunk_norms, 2 * end, np.float64)
    part_norms = table_at(launch.part_norms, UNKNOWN, np.float64)
    trusts = table_at(launch.trusts, UNKNOWN, np.float64)
    lanes = np.empty(LANES)
    row = begin
    while row < end:
        index, part = chunks[row].tensor, np.int64(chunks[row].part)
        tensor = tensors[index]
        last = row + (tensor.numel + CHUNK - 1) // CHUNK
        if tensor.grad != 0:
            start = 2 * part
            for first in range(row, last, SPAN):
                own = chunk_norms[2 * first : 2 * min(first + SPAN, last)]
                part_norms[2 * part] = fold(own[0::2], lanes)
                part_norms[2 * part + 1] = fold(own[1::2], lanes)
                part += 1
            own = part_norms[start : 2 * part]
            limit = rows[tensor.cohort * ROW + TRUST_LIMIT]
            trusts[index] = trust_ratio(fold(own[0::2], lanes), fold(own[1::2], lanes), limit)
        row = last
