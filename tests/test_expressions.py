"""Expressions: what the program evaluates against a plain evaluation of the same formula, to the last bit."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuadam import exact_math as exact
from gpuadam import expressions as ex
from gpuadam.compiler import MAX_ACCUMULATORS, ROW, Output, Program, run_section
from gpuadam.expressions import (
    Expr,
    accumulator,
    cycle,
    maximum,
    minimum,
    parameter,
    step,
    table,
    updates,
    where,
)
from gpuadam.jit import compiled
from gpuadam.program import STACK_SIZE, Op
from gpuadam.retiming import shift

STEPS = np.array([0, 1, 2, 3, 7, 10, 1209, 1210, 10**9, 2**53 - 1, 2**53])


@compiled()
def elementary(which: int, x: float, y: float) -> float:
    """The functions of exact_math, compiled, outside the stack machine."""
    if which == 0:
        return exact.exp(x)
    if which == 1:
        return exact.log(x)
    if which == 2:
        return exact.expm1(x)
    if which == 3:
        return exact.log1p(x)
    if which == 4:
        return exact.cospi(x)
    if which == 5:
        return exact.sinpi(x)
    if which == 6:
        return exact.tanh(x)
    if which == 7:
        return exact.acos(x)
    return exact.power(x, y)


def plain_cycle(position: float, first: float, multiplier: float) -> tuple[float, float]:
    """Number of the cycle and the part done, by the text of the docstring."""
    if multiplier == 1:
        index = np.floor(position / first)
        return index, part((position - index * first) / first)
    index, begin, length = 0.0, np.float64(0.0), np.float64(first)
    while position >= begin + length and index < 4096:
        index, begin, length = index + 1, begin + length, length * multiplier
    return index, part((position - begin) / length)


def part(done: float) -> float:
    """What rounding has left outside of [0, 1] is put back."""
    return done if math.isnan(done) or 0 < done < 1 else float(done >= 1)


def smaller(a: float, b: float) -> float:
    return math.nan if math.isnan(a) or math.isnan(b) else (a if a < b else b)


def larger(a: float, b: float) -> float:
    return math.nan if math.isnan(a) or math.isnan(b) else (a if a > b else b)


def entry(values: Sequence[float], index: float) -> float:
    if math.isnan(index):
        return index
    return values[int(min(max(index, 0), len(values) - 1))]


MASK = 2**64 - 1


def mixed(x: int) -> int:
    """The next number of SplitMix64 in state x, by the reference code of Vigna (prng.di.unimi.it/splitmix64.c)."""
    z = (x + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def random(seed: float, index: float) -> float:
    """The text of the docstring of program.uniform, in whole numbers."""
    if math.isnan(seed) or math.isnan(index):
        return math.nan
    words = (np.array([seed, index], np.float64) + 0.0).view(np.uint64).tolist()
    return (mixed(mixed(words[0]) ^ words[1]) >> 11) / 2**53


# name: (number of operands, how to build it, what it is of floats)
NAMES = ("exp", "log", "expm1", "log1p", "cospi", "sinpi", "tanh", "acos")
OPERATIONS: dict[str, tuple[int, Callable[..., Expr], Callable[..., float]]] = {
    **{name: (1, getattr(ex, name), lambda x, i=i: elementary(i, x, 0.0)) for i, name in enumerate(NAMES)},
    "negate": (1, lambda x: -x, lambda x: -x),
    "absolute": (1, abs, abs),
    "absolute function": (1, ex.absolute, abs),
    "floor": (1, ex.floor, np.floor),
    "sqrt": (1, ex.sqrt, np.sqrt),
    "add": (2, lambda x, y: x + y, lambda x, y: x + y),
    "subtract": (2, lambda x, y: x - y, lambda x, y: x - y),
    "multiply": (2, lambda x, y: x * y, lambda x, y: x * y),
    "divide": (2, lambda x, y: x / y, lambda x, y: x / y),
    "power": (2, lambda x, y: x**y, lambda x, y: elementary(-1, x, y)),
    "minimum": (2, minimum, smaller),
    "maximum": (2, maximum, larger),
    "less": (2, lambda x, y: x < y, lambda x, y: float(x < y)),
    "less or equal": (2, lambda x, y: x <= y, lambda x, y: float(x <= y)),
    "greater": (2, lambda x, y: x > y, lambda x, y: float(x > y)),
    "greater or equal": (2, lambda x, y: x >= y, lambda x, y: float(x >= y)),
    "equal": (2, ex.equal, lambda x, y: float(x == y)),
    "uniform": (2, ex.uniform, random),
    "where": (3, where, lambda c, x, y: x if c != 0 else y),
    "cycle index": (1, lambda x: cycle(x, 10, 3)[0], lambda x: plain_cycle(x, 10, 3)[0]),
    "cycle fraction": (1, lambda x: cycle(x, 10, 3)[1], lambda x: plain_cycle(x, 10, 3)[1]),
    "period index": (1, lambda x: cycle(x, 7)[0], lambda x: plain_cycle(x, 7, 1)[0]),
    "period fraction": (1, lambda x: cycle(x, 0.7)[1], lambda x: plain_cycle(x, 0.7, 1)[1]),
    "table": (1, lambda x: table([3, -1, 0.5, 9], x), lambda x: entry([3, -1, 0.5, 9], x)),
}

numbers = st.one_of(
    st.floats(-10, 10),
    st.floats(),
    st.sampled_from([0.0, -0.0, 1.0, 2.0, 0.5, -1.0, 5e-324, 1e308, math.inf, math.nan]),
)
Line = tuple[str, tuple[int, ...]]


@st.composite
def formulas(draw: st.DrawFn) -> tuple[list[float], list[Line]]:
    """Constants, and lines of an operation on earlier lines: 0 is `step`, 1 `updates`, then come the constants."""
    constants = draw(st.lists(numbers, min_size=1, max_size=4))
    lines: list[Line] = []
    for _ in range(draw(st.integers(1, 14))):
        name = draw(st.sampled_from(sorted(OPERATIONS)))
        earlier = st.integers(0, 1 + len(constants) + len(lines))
        lines.append((name, tuple(draw(earlier) for _ in range(OPERATIONS[name][0]))))
    return constants, lines


def assert_same_bits(ours: Any, theirs: Any) -> None:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    same = (ours.view(np.int64) == theirs.view(np.int64)) | (np.isnan(ours) & np.isnan(theirs))
    assert same.all(), f"{ours[~same]} is not {theirs[~same]}"


@settings(max_examples=400, deadline=None, derandomize=True)
@given(formulas())
def test_programs_against_plain_evaluation(formula: tuple[list[float], list[Line]]) -> None:
    """Every operation, on any doubles, with shared results, folded constants and all."""
    constants, lines = formula
    nodes: list[Any] = [step, updates, *map(ex.as_expr, constants)]
    results = [[np.float64(t), np.float64(t + 1), *map(np.float64, constants)] for t in STEPS.tolist()]
    with np.errstate(all="ignore"):
        for name, operands in lines:
            _, build, evaluate = OPERATIONS[name]
            nodes.append(build(*(nodes[i] for i in operands)))
            for row in results:
                row.append(np.float64(evaluate(*(row[i] for i in operands))))
    outputs = [Output(str(i), node, i) for i, node in enumerate(nodes)]
    program = Program()
    section = program.add(outputs)
    assert_same_bits(nodes[-1](STEPS), [row[-1] for row in results])
    rows, _ = run_section(program, section, clocks_at(STEPS))
    assert_same_bits(rows[:, : len(nodes)], results)
    if not nodes[-1].is_constant:  # of which those that are not finite are refused
        assert_same_bits(shift(nodes[-1], 0)(STEPS), [row[-1] for row in results])


def clocks_at(steps: npt.NDArray[Any]) -> npt.NDArray[Any]:
    clocks = np.repeat(Program().add([Output("step", step)]).new_clock(), len(steps))
    clocks["step"] = clocks["updates"] = steps
    return clocks


def test_every_operation_is_tested() -> None:
    """A new code of the stack machine must enter OPERATIONS; these are the ones that no operation builds."""
    built = {OPERATIONS[name][1](*[step] * OPERATIONS[name][0]).op for name in OPERATIONS}
    read = {Op.VALUE, Op.STEP, Op.UPDATES, Op.LR_SCALE, Op.ACCUMULATOR}
    assert set(Op) - built == read | {Op.LOAD, Op.STORE, Op.OUTPUT, Op.REQUIRE}


def test_the_comparison_notices_one_ulp() -> None:
    with pytest.raises(AssertionError):
        assert_same_bits([1.0, math.nan], [np.nextafter(1.0, 2), math.nan])
    with pytest.raises(AssertionError):
        assert_same_bits([0.0], [-0.0])
    with pytest.raises(AssertionError):
        assert_same_bits((step / 3)(STEPS), STEPS * (1 / 3))


def code_of(*expressions: Expr) -> list[Op]:
    program = Program()
    program.add([Output(str(i), expression, i) for i, expression in enumerate(expressions)])
    return [Op(op) for op, _ in program.code]


def test_shared_results_are_evaluated_once() -> None:
    shared = ex.exp(-step)
    code = code_of(shared * shared + shared, shared - 1)
    assert code.count(Op.EXP) == code.count(Op.STORE) == 1
    assert code.count(Op.LOAD) == 3
    assert code_of(step + step).count(Op.STORE) == 0, "a leaf costs no more than a load"
    doubled = step + 1
    for _ in range(40):  # 2^40 terms
        doubled = doubled + doubled
    assert len(code_of(doubled)) == 3 + 1 + 40 * 2 + 39 + 1
    assert doubled(0) == 2.0**40


def test_equal_constants_share_a_slot_and_parameters_do_not() -> None:
    program = Program()
    program.add([Output("lr", (step + 2.0) * 2.0 + parameter("a", 2.0) + parameter("b", 2.0) + -0.0 + 0.0)])
    assert sorted(program.pool.values) == [0.0, 0.0, 2.0, 2.0, 2.0]


def test_stack_limit() -> None:
    deep: Expr = step
    for _ in range(STACK_SIZE - 1):
        deep = 1.0 + deep
    assert deep(5) == 5 + STACK_SIZE - 1
    with pytest.raises(ValueError, match=f"too large: it .+ more than {STACK_SIZE} intermediate values"):
        (1.0 + deep)(5)
    shared: list[Expr] = [step + float(i) for i in range(STACK_SIZE - 3)]
    assert (sum(shared) + sum(shared))(0) == 2 * sum(range(STACK_SIZE - 3))
    shared.append(step + 0.5)
    with pytest.raises(ValueError, match="too large"):
        (sum(shared) + sum(shared))(0)


def test_long_chains_are_no_deep_recursion() -> None:
    chain: Expr = step
    for _ in range(5000):
        chain = chain + 1.0
    assert chain(7) == 5007
    assert shift(chain, 2)(7) == 5005


def test_a_row_has_its_limit() -> None:
    program = Program()
    program.add([Output(str(i), step) for i in range(ROW)])
    with pytest.raises(ValueError, match=f"may put out {ROW} values, got {ROW + 1}"):
        program.add([Output(str(i), step) for i in range(ROW + 1)])


def test_guards_name_the_first_output_out_of_range() -> None:
    program = Program()
    outputs = [Output("free", step), Output("lr", 2 - step, 1, 0.0, 1.5), Output("beta", step / 0 * 0, 2, 0.0, 1.0)]
    section = program.add(outputs)
    _, faults = run_section(program, section, clocks_at(np.arange(4)))
    assert [section.guards[fault].name for fault in faults] == ["lr", "beta", "beta", "lr"]
    outputs[2] = Output("beta", parameter("beta", 0.5), 2, 0.0, 1.0)
    section = program.add(outputs)
    _, faults = run_section(program, section, clocks_at(np.arange(1, 3)))
    assert faults.tolist() == [-1, -1]


def test_accumulators() -> None:
    """From `initial` on, one update a step, of the step's own number."""
    total = accumulator("total", 0.0, lambda value: value + step)
    assert [total(t) for t in range(5)] == [0, 0, 1, 3, 6]
    product = accumulator("product", 1, lambda value: value * 0.5)
    assert (product + total * 10)([3, 0, 4, 4]).tolist() == [30.125, 1.0, 60.0625, 60.0625]
    seen = accumulator("updates", 0.0, lambda _: updates)
    assert seen([0, 1, 5]).tolist() == [0, 1, 5]
    fixed = accumulator("fixed", 3.0, lambda _: 4)
    assert fixed(range(3)).tolist() == [3, 4, 4]


def test_accumulators_move_together() -> None:
    """Each update reads the old values of all: Fibonacci's numbers by two that hold each other."""
    for one, two in (("a", "b"), ("b", "a")):
        pair = accumulator(one, 1.0, lambda x, two=two: accumulator(two, 1.0, lambda y, x=x: x + y))
        assert pair(np.arange(9)).tolist() == [1, 1, 2, 3, 5, 8, 13, 21, 34]


def test_accumulators_replay_for_any_order_and_shape() -> None:
    total = accumulator("total", 0.0, lambda value: value + step * step)
    steps = np.array([[9, 0, 3], [3, 30, 1]])
    expected = np.vectorize(lambda n: sum(k * k for k in range(n)))(steps)
    assert_same_bits(total(steps), expected)
    assert_same_bits([[total(int(t)) for t in row] for row in steps], expected)


def test_accumulators_have_their_limit() -> None:
    many = [accumulator(f"a{i}", float(i), lambda value: value + 1) for i in range(MAX_ACCUMULATORS + 1)]
    assert sum(many[:MAX_ACCUMULATORS], ex.as_expr(0))(2) == 6 + 2 * MAX_ACCUMULATORS
    with pytest.raises(ValueError, match=f"may hold {MAX_ACCUMULATORS} accumulators, got 5: 'a.', "):
        sum(many, ex.as_expr(0))(2)
    with pytest.raises(TypeError, match="accumulator 'x' must be a number, got 'y'"):
        accumulator("x", "y", lambda value: value)
    with pytest.raises(TypeError, match="the update of accumulator 'x' must be a number, got None"):
        accumulator("x", 0.0, lambda value: None)


def test_parameters_are_read_when_evaluated() -> None:
    scale = parameter("scale", 1.5)
    lr = scale * (step + 1)
    assert lr(1) == 3.0
    program = Program()
    section = program.add([Output("lr", lr)])
    program.set_parameter("scale", 2.5)
    assert run_section(program, section, clocks_at(STEPS[:2]))[0][:, 0].tolist() == [2.5, 5.0]
    assert not (scale * 2).is_constant, "a parameter is never folded"
    for name in ("", 3, None):
        with pytest.raises(TypeError, match="the name of a parameter must be a non-empty string"):
            parameter(name, 1.0)
    with pytest.raises(TypeError, match="parameter 'scale' must be a number, got True"):
        parameter("scale", True)


def test_constants_fold_by_the_same_evaluator() -> None:
    folded = ex.exp(ex.as_expr(0.3)) ** 2 / 7
    assert folded.is_constant
    assert_same_bits(folded(0), (ex.exp(0.3 + 0 * step) ** 2 / 7)(0))
    assert code_of(folded) == [Op.VALUE, Op.OUTPUT]
    assert minimum(2, 3).payload == 2
    assert where(1, 2, 3).payload == 2
    assert cycle(25, 10)[0].payload == 2
    assert math.isnan((ex.as_expr(0) / 0).payload)
    assert not (step * 0).is_constant, "NaN and infinity times 0 are not 0"


def test_shift_moves_the_step_alone() -> None:
    shared = ex.sqrt(step + 1)
    scale = parameter("scale", 2.0)
    moved = shift(scale * shared + shared * updates, 3)
    assert code_of(moved).count(Op.SQRT) == 1
    assert moved([3, 12]).tolist() == [1 * (2 + 4), math.sqrt(10) * 2 + math.sqrt(10) * 13]
    program = Program()
    program.add([Output("moved", moved), Output("as it was", scale, 1)])
    assert len(program.pool.parameters) == 1
    assert shift(step, 5)([5, 0, 9]).tolist() == [0, -5, 4]
    assert shift(ex.as_expr(7), 5)(0) == 7


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    first=st.one_of(st.integers(1, 10**6), st.floats(0.1, 1e4)),
    multiplier=st.one_of(st.just(1), st.integers(2, 9), st.floats(1.05, 9)),
    offset=st.integers(0, 10**12),
)
def test_cycles_hold_every_step(first: float, multiplier: float, offset: int) -> None:
    """Without a gap, and the part done in [0, 1); lengths that are no whole numbers may miss that by their rounding."""
    index, done = cycle(step, first, multiplier)
    steps = offset + np.arange(200)
    whole = isinstance(first, int) and isinstance(multiplier, int)
    slack = 0.0 if whole else 4 * np.spacing(float(offset + 200)) / first
    assert index(0) == done(0) == 0
    assert (np.diff(index(steps)) >= 0).all()
    assert (done(steps) >= 0).all()
    assert (done(steps) < 1 + slack).all()
    if multiplier == 1:
        np.testing.assert_allclose((index(steps) + done(steps)) * first, steps, rtol=1e-15)


def test_cycle_boundaries() -> None:
    index, done = cycle(step, 10, 3)
    boundary = 0
    for number in range(1, 30):
        boundary += 10 * 3 ** (number - 1)
        assert index([boundary - 1, boundary, boundary + 1]).tolist() == [number - 1, number, number]
        assert done(boundary) == 0
        assert 1 - done(boundary - 1) == pytest.approx(1 / (10 * 3 ** (number - 1)), rel=1e-12, abs=2e-16)
    index, done = cycle(step, 49)
    multiples = 49 * np.array([1, 2, 10**6, 10**13])
    assert index(multiples).tolist() == [1, 2, 10**6, 10**13]
    assert index(multiples - 1).tolist() == [0, 1, 10**6 - 1, 10**13 - 1]
    assert done(multiples).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("first", "multiplier", "message"),
    [
        (0, 1, "> 0, got 0.0"), (-3, 2, "> 0, got -3.0"), (math.nan, 1, "got nan"), (math.inf, 1, "got inf"),
        (10, 0.5, ">= 1, got 0.5"), (10, math.nan, ">= 1, got nan"), (10, math.inf, ">= 1, got inf"),
        (10, 1.001, "multiplier 1.001 makes more than 4096 cycles"),
    ],
)  # fmt: skip
def test_cycles_that_are_refused(first: float, multiplier: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cycle(step, first, multiplier)


def test_cycle_takes_numbers() -> None:
    assert cycle(step, 10, 1.008)[0](2**53) < 4096
    with pytest.raises(TypeError, match="first must be a number, got step"):
        cycle(step, step)
    with pytest.raises(TypeError, match="multiplier must be a number, got True"):
        cycle(step, 10, True)


def test_table() -> None:
    entries = table((1, np.float32(2), 3.5), step)
    assert entries([0, 1, 2, 3, 2**53]).tolist() == [1, 2, 3.5, 3.5, 3.5]
    assert table([1, 2], step - 5)(0) == 1
    assert table([1, 2, 3], step / 2)([0, 1, 2, 3, 4]).tolist() == [1, 1, 2, 2, 3]
    assert math.isnan(table([1, 2], step / 0 * 0)(1))
    assert table([1, 2], step / 0)(1) == 2
    assert table(range(1000), step)(777) == 777
    with pytest.raises(ValueError, match="at least one entry"):
        table([], step)
    with pytest.raises(TypeError, match="entry 1 of the table must be a number, got 'x'"):
        table([1, "x"], step)


def test_no_truth_value() -> None:
    for misuse in (
        lambda: bool(step), lambda: bool(step < 3), lambda: 0 < step < 3, lambda: max(step, 3), lambda: not step,
        lambda: sorted([step + 1, step]),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=r"no truth value.+where\(condition, value, otherwise\)"):
            misuse()


@pytest.mark.parametrize("bad", [True, np.True_, "1", None, [1], np.ones(2), 1j])
def test_what_is_no_number_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match="operand must be a number, got"):
        minimum(step, bad)
    if not isinstance(bad, list | np.ndarray):
        with pytest.raises(TypeError, match="operand must be a number, got"):
            step * bad
        with pytest.raises(TypeError, match="operand must be a number, got"):
            bad - step


def test_callables_are_sent_to_sampled() -> None:
    with pytest.raises(TypeError, match=r"plain callable.+schedules\.sampled\(callable, steps\)"):
        step * math.sin
    with pytest.raises(TypeError, match="cond is a plain callable"):
        ex.as_expr(lambda k: k, "cond")
    with pytest.raises(TypeError, match=r"write equal\(a, b\)"):
        where(step == 3, 1, 2)  # == compares the objects: equal() it must be


def test_numpy_scalars_are_numbers() -> None:
    for number in (np.float64(2), np.float32(2), np.int64(2), np.uint8(2)):
        for expression in (number * step, step * number, number + step, number**step, step**number, number / step):
            assert isinstance(expression, Expr)
        assert (number - step)(5) == -3
        assert (number < step)(5) == 1


def test_shapes() -> None:
    """A number gives a float, an array a float64 array of its shape, empty ones too."""
    assert isinstance(step(3), float)
    assert isinstance(step(np.int32(3)), float)
    for steps in (np.arange(6).reshape(2, 3), np.arange(6.0), [1, 2], range(3), np.zeros((0, 3), int), np.uint8([1])):
        values = step(steps)
        assert values.shape == np.shape(steps)
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, np.asarray(steps))
    assert step(np.arange(12).reshape(3, 4).T).tolist() == np.arange(12.0).reshape(3, 4).T.tolist()


@pytest.mark.parametrize(
    "bad", [-1, 0.5, [1, -1], [1, 2.5], math.nan, math.inf, 1e300, 2**63, 2**70, "1", None, True, 1j]
)
def test_steps_that_are_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="a step must be a whole number >= 0, got"):
        step(bad)


def test_updates_may_differ_from_steps() -> None:
    assert updates(10) == 11
    assert updates(10, updates=4) == 4
    assert (step + updates)([1, 2], updates=[4, 9]).tolist() == [5, 11]
    assert (step + updates)([1, 2], updates=4).tolist() == [5, 6]
    for bad in (0, -1, 1.5, math.nan, [1, 0]):
        with pytest.raises(ValueError, match="updates must be a whole number >= 1, got"):
            updates([1, 2], updates=bad)


def test_repr() -> None:
    assert repr(0.1 * step + parameter("scale", 2.0)) == "add(..., scale=2.0)"
    assert repr(minimum(step, 3)) == "minimum(step, 3.0)"
