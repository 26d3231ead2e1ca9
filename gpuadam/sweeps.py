"""The walk over elements, compiled by Numba once a specialisation (twin of step.cu and walk.cuh).

load weight, gradient, states -> scale and clip the gradient -> rule -> average -> store
"""

import functools
from typing import Any

import numba
import numpy as np
from numba import types
from numba.np.unsafe.ndarray import to_fixed_tuple

from .access import UNKNOWN, array_at, gradient_factor, load, store, table_at
from .compiler import CLOCK, ROW
from .formats import COMPANION_STORAGE, FORMATS, Specialisation, unrounded
from .jit import inlined, kept
from .rounding import chunk_key, remainder_high, remainder_join, remainder_low
from .rules import with_all_states
from .states import make_buffer, make_draws, make_states
from .tables import CHUNK, CHUNK_ROW, LAUNCH, SCALARS, STEP_SIZE, TENSOR

sweep_type = types.void(types.int64, types.int64, types.int64)


def make_weight(kind: Specialisation) -> tuple[Any, Any]:
    """How a weight is read from a parameter and its companion, and how a new one is put into them."""
    form = FORMATS[kind.param]
    value, nearest = form.value, form.nearest
    code = form.stochastic if kind.rounding == "stochastic" else nearest

    @inlined
    def read(param: Any, companion: Any) -> Any:
        return value(param)

    @inlined
    def write(weight: Any, random: Any) -> Any:
        return code(weight, random), None

    @inlined
    def read_master(param: Any, master: Any) -> Any:
        """The parameter itself where somebody has written to it."""
        return master if nearest(master, np.uint32(0)) == param else value(param)

    @inlined
    def write_master(weight: Any, random: Any) -> Any:
        return nearest(weight, random), weight

    @inlined
    def read_parts(param: Any, remainder: Any) -> Any:
        return remainder_join(param, remainder)

    @inlined
    def write_parts(weight: Any, random: Any) -> Any:
        return remainder_high(weight), remainder_low(weight)

    ways = {None: (read, write), "float32": (read_master, write_master), "remainder": (read_parts, write_parts)}
    return ways[kind.companion]


def make_average(kind: Specialisation) -> tuple[Any, Any]:
    """The dtype of the average, if there is one, and how it moves."""
    if not kind.ema:
        return None, unrounded

    @inlined
    def average(old: Any, towards: Any) -> Any:
        return old + towards[1] * (towards[0] - old)

    return FORMATS[kind.compute].storage, average


@inlined
def scaled_and_clipped(grad: Any, factor: Any, clip: Any) -> Any:
    """The gradient as the rule sees it: in the scale of the loss itself, and clipped."""
    grad = grad * factor
    grad = clip if grad > clip else grad
    return -clip if grad < -clip else grad


@inlined
def round_row(launch: Any, tensor: Any, rounded: Any, count: int) -> None:
    """The coefficients for a tensor, in the rule's type."""
    rows = table_at(launch.rows, UNKNOWN, np.float64)
    own = tensor.cohort * ROW
    for i in range(count):  # a constant, by which the loop is unrolled
        rounded[i] = rows[own + i]
    rounded[0] = rows[own] * gradient_factor(launch, tensor, rows[own + count])


@inlined
def trust_step(launch: Any, tensor: Any, trust: float, rounded: Any) -> None:
    """The size of the step of a rule that is measured, by the tensor's trust ratio."""
    rows = table_at(launch.rows, UNKNOWN, np.float64)
    rounded[STEP_SIZE] = rows[tensor.cohort * ROW + STEP_SIZE] * trust


def make_update(kind: Specialisation) -> Any:
    """The update of elements [first, first + count) of a tensor; the twin of update_chunk in step.cu."""
    element, zero_grads = with_all_states(kind.rule, kind.rule.element), kind.zero_grads
    param_dtype, grad_dtype = FORMATS[kind.param].storage, FORMATS[kind.grad].storage
    companion_dtype = COMPANION_STORAGE[kind.companion]
    compute: Any = FORMATS[kind.compute].storage.type
    grad_value, no_grad = FORMATS[kind.grad].value, grad_dtype.type(0)
    read_weight, write_weight = make_weight(kind)
    ema_dtype, average = make_average(kind)
    streams, bits = make_draws(kind)
    open_states, (value0, value1, value2), (code0, code1, code2), close_states = make_states(kind)

    @inlined
    def update(tensor: Any, first: Any, count: Any, c: Any, recipe: Any, key: Any, buffers: Any) -> None:
        clip, ema_weight = recipe
        params = array_at(np.int64(tensor.param), first, count, param_dtype)
        grads = array_at(np.int64(tensor.grad), first, count, grad_dtype)
        companions = array_at(np.int64(tensor.companion), first, count, companion_dtype)
        emas = array_at(np.int64(tensor.ema), first, count, ema_dtype)
        states0, states1, states2 = open_states(tensor, first, count, buffers)
        stream, stream0, stream1, stream2 = streams(key)
        for i in range(count):
            grad = scaled_and_clipped(compute(grad_value(grads[i])), c.grad_factor, clip)
            weight = read_weight(params[i], load(companions, i))
            new = element(weight, grad, value0(load(states0, i)), value1(load(states1, i)), value2(load(states2, i)), c)
            param, companion = write_weight(new[0], bits(stream, i))
            params[i] = param
            store(companions, i, companion)
            store(emas, i, average(load(emas, i), (read_weight(param, companion), ema_weight)))
            store(states0, i, code0(new[1], bits(stream0, i)))
            store(states1, i, code1(new[2], bits(stream1, i)))
            store(states2, i, code2(new[3], bits(stream2, i)))
            if zero_grads:
                grads[i] = no_grad
        close_states(tensor, first, count, buffers, (stream0, stream1, stream2))

    return update


def make_chunk_key(kind: Specialisation) -> Any:
    """The key of the random numbers of a chunk in this step."""
    if not kind.draws:
        return inlined(lambda launch, tensor, chunk: None)

    @inlined
    def key_of(launch: Any, tensor: Any, chunk: Any) -> Any:
        seed = table_at(launch.scalars, 1, SCALARS)[0].seed
        step = table_at(launch.clocks, UNKNOWN, CLOCK)[tensor.cohort].step
        return chunk_key(seed, step, np.int64(chunk.tensor), np.int64(chunk.index))

    return key_of


@functools.cache
def make_sweep(kind: Specialisation) -> Any:
    """Compile the update of chunks [begin, end) for one specialisation; the twin of update_chunks in step.cu."""
    update = make_update(kind)
    row_type, compute = kind.rule.row, FORMATS[kind.compute].storage
    size: int = len(row_type._fields)  # type: ignore[attr-defined]
    by_chunk, new_buffer, chunk_key_of = kind.draws, make_buffer(kind), make_chunk_key(kind)
    is_measured = kind.rule.measure is not None

    def sweep(launch_address: int, begin: int, end: int) -> None:
        launch = table_at(launch_address, 1, LAUNCH)[0]
        chunks = table_at(launch.chunks, end, CHUNK_ROW)
        tensors = table_at(launch.tensors, UNKNOWN, TENSOR)
        trusts = table_at(launch.trusts, UNKNOWN, np.float64)
        buffers = new_buffer(), new_buffer(), new_buffer()
        rounded = np.empty(size + 2, compute)
        row = begin
        while row < end:
            head = chunks[row]
            tensor = tensors[head.tensor]
            while not by_chunk and row + 1 < end and chunks[row + 1].tensor == head.tensor:
                row += 1  # neighbours are one run of elements
            first = np.int64(head.index) * CHUNK
            count = min((np.int64(chunks[row].index) + 1) * CHUNK, tensor.numel) - first
            row += 1
            if tensor.grad != 0:
                round_row(launch, tensor, rounded, size + 2)
                if is_measured:
                    trust_step(launch, tensor, trusts[head.tensor], rounded)
                c = row_type(*to_fixed_tuple(rounded, size))
                recipe = rounded[size], rounded[size + 1]
                update(tensor, first, count, c, recipe, chunk_key_of(launch, tensor, head), buffers)

    return kept(functools.partial(numba.cfunc, sweep_type, error_model="numpy"), sweep)
