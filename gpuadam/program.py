"""Programs: what depends on the step alone, as data, and the stack machine that evaluates it (twin of program.cuh).

A program is a row of instructions in postfix order over a pool of doubles. It reads the pool (constants,
hyperparameters and named parameters alike), the counters of one clock and its accumulators, and writes a row of
outputs. Nothing in it can fail: whatever is wrong comes out as NaN and is caught by the REQUIRE that guards every
hyperparameter.
"""

import enum
import math
from typing import Any

import numpy as np
from numpy import int64, uint64

from . import exact_math as exact
from .jit import compiled, inlined
from .rounding import absorbed

STACK_SIZE = 64  # doubles an evaluation may hold: its operands from below, its shared results from above
MAXIMUM_CYCLES = 4096  # cycles that repeated addition may walk through
TWO_TO_MINUS_53 = 1.1102230246251565e-16
VALID = -1  # what evaluate() returns when no REQUIRE failed


class Op(enum.IntEnum):
    """Operation codes; program.cuh lists the same names in the same order."""

    VALUE = 0  # push values[argument]
    STEP = enum.auto()  # push the updates applied before this one
    UPDATES = enum.auto()  # push the updates that the tensor has had, this one included
    LR_SCALE = enum.auto()  # push the factor of the learning rate that is the tensor's own
    ACCUMULATOR = enum.auto()  # push accumulators[argument]
    LOAD = enum.auto()  # push stack[argument]
    STORE = enum.auto()  # stack[argument] = top, which stays
    NEGATE = enum.auto()
    ABSOLUTE = enum.auto()
    FLOOR = enum.auto()
    SQRT = enum.auto()
    EXP = enum.auto()
    LOG = enum.auto()
    EXPM1 = enum.auto()
    LOG1P = enum.auto()
    COSPI = enum.auto()
    SINPI = enum.auto()
    TANH = enum.auto()
    ACOS = enum.auto()
    ADD = enum.auto()
    SUBTRACT = enum.auto()
    MULTIPLY = enum.auto()
    DIVIDE = enum.auto()
    MINIMUM = enum.auto()
    MAXIMUM = enum.auto()
    POWER = enum.auto()
    UNIFORM = enum.auto()  # seed, index -> random number from 0 to below 1
    LESS = enum.auto()
    LESS_EQUAL = enum.auto()
    EQUAL = enum.auto()
    WHERE = enum.auto()  # otherwise, value, condition -> value if condition else otherwise
    CYCLE_INDEX = enum.auto()  # step, first length, multiplier -> number of the cycle
    CYCLE_FRACTION = enum.auto()  # step, first length, multiplier -> part of the cycle that is done
    TABLE = enum.auto()  # index -> entry of the table at values[argument], its length first
    OUTPUT = enum.auto()  # outputs[argument] = pop
    REQUIRE = enum.auto()  # top, which stays, must lie in [values[argument], values[argument + 1]]


INSTRUCTION = np.dtype([("op", np.int32), ("argument", np.int32)])


@inlined
def minimum(a: float, b: float) -> float:
    return a if a < b or a != a else b


@inlined
def maximum(a: float, b: float) -> float:
    return a if a > b or a != a else b


@inlined
def cycle(step: float, first: float, multiplier: float, fraction: bool) -> float:
    """Cycle by repeated addition (never by logarithm, which is wrong at boundaries), or by an exact floor division."""
    index = 0.0
    begin = 0.0
    length = first
    if multiplier == 1.0:
        index = np.floor(step / first)
        begin = index * first
    else:
        while step >= begin + length and index < MAXIMUM_CYCLES:
            begin += length
            length *= multiplier
            index += 1.0
    if not fraction:
        return index
    return minimum(maximum((step - begin) / length, 0.0), 1.0)  # fractional lengths round


@inlined
def table(values: Any, start: int, index: float) -> float:
    """Entry floor(index) of a table, the first before it and the last after it; NaN for NaN."""
    if index != index:
        return index
    return values[start + 1 + int(minimum(maximum(index, 0.0), values[start] - 1.0))]  # type: ignore[no-any-return]


@inlined
def uniform(seed: float, index: float) -> float:
    """A random number of 53 bits, from 0 to below 1: a hash of the bits of both, -0 being 0; NaN for NaN."""
    if seed != seed or index != index:
        return math.nan
    key = absorbed(uint64(0), uint64(exact.bits_of(seed + 0.0)))
    key = absorbed(key, uint64(exact.bits_of(index + 0.0)))
    return float(int64(key >> uint64(11))) * TWO_TO_MINUS_53


@inlined
def unary(op: int, x: float) -> float:
    if op == Op.NEGATE:
        return -x
    if op == Op.ABSOLUTE:
        return abs(x)
    if op == Op.FLOOR:
        return np.floor(x)  # type: ignore[no-any-return]
    if op == Op.SQRT:
        return math.sqrt(x)
    if op == Op.EXP:
        return exact.exp(x)
    if op == Op.LOG:
        return exact.log(x)
    if op == Op.EXPM1:
        return exact.expm1(x)
    if op == Op.LOG1P:
        return exact.log1p(x)
    if op == Op.COSPI:
        return exact.cospi(x)
    if op == Op.SINPI:
        return exact.sinpi(x)
    if op == Op.TANH:
        return exact.tanh(x)
    return exact.acos(x)


@inlined
def binary(op: int, a: float, b: float) -> float:
    if op == Op.ADD:
        return a + b
    if op == Op.SUBTRACT:
        return a - b
    if op == Op.MULTIPLY:
        return a * b
    if op == Op.DIVIDE:
        return a / b
    if op == Op.MINIMUM:
        return minimum(a, b)
    if op == Op.MAXIMUM:
        return maximum(a, b)
    if op == Op.POWER:
        return exact.power(a, b)
    if op == Op.UNIFORM:
        return uniform(a, b)
    if op == Op.LESS:
        return 1.0 if a < b else 0.0
    if op == Op.LESS_EQUAL:
        return 1.0 if a <= b else 0.0
    return 1.0 if a == b else 0.0


@inlined
def ternary(op: int, a: float, b: float, c: float) -> float:
    if op == Op.WHERE:
        return b if c != 0.0 else a
    return cycle(a, b, c, op == Op.CYCLE_FRACTION)


@compiled()
def evaluate(program: Any, begin: Any, end: Any, values: Any, clock: Any, stack: Any, outputs: Any) -> int:
    """Run instructions [begin, end) for one clock.

    Args:
        program: Rows of INSTRUCTION.
        values: float64 pool.
        clock: Record with `step`, `updates` (int64) and `accumulators` (float64).
        stack: float64 [STACK_SIZE] to work in.
        outputs: float64 row that OUTPUT writes.

    Returns:
        VALID, or the index of the first instruction whose REQUIRE failed; the outputs are written all the same.
    """
    fault = VALID
    top = -1
    for index in range(begin, end):
        op = program[index].op
        argument = program[index].argument
        if op <= Op.LOAD:
            top += 1
            if op == Op.VALUE:
                stack[top] = values[argument]
            elif op == Op.STEP:
                stack[top] = float(clock.step)
            elif op == Op.UPDATES:
                stack[top] = float(clock.updates + 1)
            elif op == Op.LR_SCALE:
                stack[top] = clock.lr_scale
            elif op == Op.ACCUMULATOR:
                stack[top] = clock.accumulators[argument]
            else:
                stack[top] = stack[argument]
        elif op == Op.STORE:
            stack[argument] = stack[top]
        elif op <= Op.ACOS:
            stack[top] = unary(op, stack[top])
        elif op <= Op.EQUAL:
            top -= 1
            stack[top] = binary(op, stack[top], stack[top + 1])
        elif op <= Op.CYCLE_FRACTION:
            top -= 2
            stack[top] = ternary(op, stack[top], stack[top + 1], stack[top + 2])
        elif op == Op.TABLE:
            stack[top] = table(values, argument, stack[top])
        elif op == Op.OUTPUT:
            outputs[argument] = stack[top]
            top -= 1
        elif not (values[argument] <= stack[top] <= values[argument + 1]) and fault == VALID:
            fault = index
    return fault
