"""Schedules against the oracle, against PyTorch, against 50 digits; what they refuse; their doctests."""

import doctest
import itertools
import math
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuadam import expressions, schedules
from gpuadam.expressions import Expr

Values = npt.NDArray[np.float64]
FAR = [10**6, 10**9 - 1, 10**9, 10**9 + 1]
SHORT = [*range(400), *FAR]
LONG = [*range(50), *range(49_950, 50_050), *range(99_900, 100_100), *FAR]


def assert_close(ours: Any, theirs: Any, scale: float = 0.0) -> None:
    """Within 8 ulp (both sides square a sine, 4 ulp each), and 4 ulp of the scale where the formula loses that much."""
    np.testing.assert_array_less(np.abs(ours - theirs), 8 * np.spacing(np.abs(theirs)) + 4 * np.spacing(scale))


def values(schedule: oracle.Schedule, steps: list[int]) -> Values:
    return np.array([schedule(t) for t in steps])


# name: ours, the oracle's, steps, scale
CASES: dict[str, tuple[Expr, oracle.Schedule, list[int], float]] = {
    "piecewise left": (
        schedules.piecewise_constant([3, 10, 200], [0.3, 0.2, 0.7, 0.0]),
        oracle.piecewise_constant([3, 10, 200], [0.3, 0.2, 0.7, 0.0]), SHORT, 0),
    "piecewise right": (
        schedules.piecewise_constant([0, 10.5, 200], [9, 0.2, 0.7, 0.1], boundary="right"),
        oracle.piecewise_constant([0, 10.5, 200], [9, 0.2, 0.7, 0.1], right=True), SHORT, 0),
    "exponential": (
        schedules.exponential_decay(0.1, 100, 0.96), oracle.exponential_decay(0.1, 100, 0.96), [*SHORT, 31_700], 0),
    "exponential staircase": (
        schedules.exponential_decay(0.1, 49, 0.5, staircase=True),
        oracle.exponential_decay(0.1, 49, 0.5, staircase=True), [*range(1000), 49 * 10**3 - 1, 49 * 10**3, *FAR], 0),
    "exponential down to": (
        schedules.exponential_decay(0.1, 10, 0.9, end_value=0.01),
        lambda t: max(oracle.exponential_decay(0.1, 10, 0.9)(t), 0.01), SHORT, 0),
    "exponential up to": (
        schedules.exponential_decay(1e-7, 300, 10 / 1e-7, end_value=10),
        lambda t: min(oracle.exponential_decay(1e-7, 300, 10 / 1e-7)(min(t, 400)), 10), SHORT, 0),
    "polynomial": (schedules.polynomial_decay(0.1, 300), oracle.polynomial_decay(0.1, 300), SHORT, 0),
    "polynomial 2.5": (
        schedules.polynomial_decay(0.1, 300, 0.2, 2.5), oracle.polynomial_decay(0.1, 300, 0.2, 2.5), SHORT, 0.1),
    "polynomial cycle": (
        schedules.polynomial_decay(0.1, 37, 0.01, 0.5, cycle=True),
        oracle.polynomial_decay(0.1, 37, 0.01, 0.5, cycle=True), SHORT, 0),
    "cosine": (schedules.cosine_decay(0.1, 100_000), oracle.cosine_decay(0.1, 100_000), LONG, 0),
    "cosine alpha": (schedules.cosine_decay(0.1, 300, 0.05), oracle.cosine_decay(0.1, 300, 0.05), SHORT, 0),
    "warm-up": (schedules.linear_warmup(0.1, 300), oracle.linear_warmup(0.1, 300), SHORT, 0),
    "warm-up from": (schedules.linear_warmup(0.1, 300, 0.2), oracle.linear_warmup(0.1, 300, 0.2), SHORT, 0),
    "warm-up 1-based": (
        schedules.linear_warmup(0.1, 300, first=1), lambda t: oracle.linear_warmup(0.1, 300)(t + 1), SHORT, 0),
    "warm-up cosine": (
        schedules.warmup_cosine_decay(0.01, 0.3, 50, 100_000, 1e-5),
        oracle.warmup_cosine_decay(0.01, 0.3, 50, 100_000, 1e-5), LONG, 0),
    "no warm-up cosine": (
        schedules.warmup_cosine_decay(0.0, 0.3, 0, 300), oracle.warmup_cosine_decay(0.0, 0.3, 0, 300), SHORT, 0),
    "cyclic": (schedules.cyclic(0.0, 0.1, 50), oracle.cyclic(0.0, 0.1, 50), SHORT, 0),
    "cyclic 2": (
        schedules.cyclic(0.01, 0.1, 4, mode="triangular2"), oracle.cyclic(0.01, 0.1, 4, "triangular2"), SHORT, 0),
    "cyclic exp": (
        schedules.cyclic(0.0, 0.1, 40, mode="exp_range", gamma=0.999),
        oracle.cyclic(0.0, 0.1, 40, "exp_range", 0.999), SHORT, 0),
    "cyclic momentum": (
        schedules.cyclic(0.95, 0.85, 40, step_size_down=7), oracle.cyclic(0.95, 0.85, 40, step_size_down=7), SHORT, 0),
    "cyclic fractional": (schedules.cyclic(0.01, 0.1, 4.3), oracle.cyclic(0.01, 0.1, 4.3), [*range(400)], 0),
    "restarts": (schedules.cosine_decay_restarts(0.1, 10), oracle.cosine_decay_restarts(0.1, 10), SHORT, 0.1),
    "restarts 3": (
        schedules.cosine_decay_restarts(0.1, 10, 3.0, 0.7, 0.01),
        oracle.cosine_decay_restarts(0.1, 10, 3.0, 0.7, 0.01), SHORT, 0.1),
    "restarts 1.5": (
        schedules.cosine_decay_restarts(0.1, 7, 1.5), oracle.cosine_decay_restarts(0.1, 7, 1.5), SHORT, 0.1),
    "restarts 1": (
        schedules.cosine_decay_restarts(0.1, 49, 1, 0.9),
        oracle.cosine_decay_restarts(0.1, 49, 1, 0.9), SHORT[:-3], 0.1),
    "join": (
        schedules.join(
            [schedules.linear_warmup(0.1, 10), schedules.cosine_decay(0.1, 90), 0.05, schedules.cyclic(0.01, 0.1, 7)],
            [10, 100, 150]),
        oracle.join(
            [oracle.linear_warmup(0.1, 10), oracle.cosine_decay(0.1, 90), oracle.constant(0.05),
             oracle.cyclic(0.01, 0.1, 7)], [10, 100, 150]), SHORT, 0),
}  # fmt: skip
for anneal, three, pct in itertools.product(("cosine", "linear"), (False, True), (0.0, 0.001, 0.17, 0.3, 0.5)):
    keys: dict[str, Any] = {"pct_start": pct, "three_phase": three}
    CASES[f"one cycle {anneal} {three} {pct}"] = (
        schedules.one_cycle(0.2, 350, anneal=anneal, **keys),
        oracle.one_cycle(0.2, 350, anneal=anneal.replace("cosine", "cos"), **keys), SHORT, 0)  # fmt: skip
    if three and pct < 0.1:
        continue  # a momentum that never moves: nothing to compare
    CASES[f"one cycle momentum {anneal} {three} {pct}"] = (
        schedules.one_cycle_momentum(350, anneal=anneal, **keys),
        oracle.one_cycle_momentum(350, anneal=anneal.replace("cosine", "cos"), **keys), SHORT, 0)  # fmt: skip


for pct in (0.9, 1.0):
    CASES[f"one cycle {pct}"] = (
        schedules.one_cycle(0.2, 350, pct_start=pct), oracle.one_cycle(0.2, 350, pct_start=pct), SHORT, 0)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_against_the_oracle(name: str) -> None:
    """Every edge, one step to either side of it, and far beyond; the same schedule one step late must be told apart."""
    ours, theirs, steps, scale = CASES[name]
    expected = values(theirs, steps)
    assert_close(ours(steps), expected, scale)
    with pytest.raises(AssertionError):
        assert_close(ours([t + 1 for t in steps]), expected, scale)
    with pytest.raises(AssertionError):
        assert_close(ours(steps) * (1 + 4e-15), expected, 0)


LR = st.floats(1e-6, 10)
STEPS = st.integers(1, 10**6)
PART = st.floats(0, 1)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(lr=LR, low=LR, length=STEPS, warmup=st.integers(0, 10**6), part=PART, power=st.floats(0.1, 5), t=st.data())
def test_random_arguments(lr: float, low: float, length: int, warmup: int, part: float, power: float, t: Any) -> None:
    """Where the cases above may have been kind: any numbers, at steps around the places where something happens."""
    three, anneal = part <= 0.5, {"cosine": "cos", "linear": "linear"}
    total = length + warmup
    around = [place + offset for place in (0, warmup, length, total, total * 3) for offset in (-1, 0, 1)]
    steps = sorted(max(0, place) for place in [*around, *t.draw(st.lists(st.integers(0, 3 * total), max_size=9))])
    pairs: list[tuple[Expr, oracle.Schedule]] = [
        (schedules.cosine_decay(lr, length, part), oracle.cosine_decay(lr, length, part)),
        (schedules.polynomial_decay(lr, length, low, power), oracle.polynomial_decay(lr, length, low, power)),
        (schedules.polynomial_decay(lr, length, low, cycle=True), oracle.polynomial_decay(lr, length, low, 1, True)),
        (schedules.exponential_decay(lr, length, part + 1e-3), oracle.exponential_decay(lr, length, part + 1e-3)),
        (schedules.linear_warmup(lr, warmup, low), oracle.linear_warmup(lr, warmup, low)),
        (schedules.warmup_cosine_decay(0, lr, warmup, total, low),
         oracle.warmup_cosine_decay(0, lr, warmup, total, low)),
        (schedules.cyclic(low, lr, length, step_size_down=warmup + 1),
         oracle.cyclic(low, lr, length, step_size_down=warmup + 1)),
        (schedules.cosine_decay_restarts(lr, length, 1 + power), oracle.cosine_decay_restarts(lr, length, 1 + power)),
    ]  # fmt: skip
    if part * total != 1:  # where the oracle, like PyTorch, divides by a phase of no length
        pairs += [
            (schedules.one_cycle(lr, total, pct_start=part, anneal=mine, three_phase=three),
             oracle.one_cycle(lr, total, part, anneal=its, three_phase=three)) for mine, its in anneal.items()
        ]  # fmt: skip
    for ours, theirs in pairs:
        assert_close(ours(steps), values(theirs, steps), 4 * max(lr, low))


def run_torch(make: Callable[[Any, Any], Any], count: int) -> Values:
    """(lr, momentum) of a PyTorch scheduler at t = 0 .. count - 1."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.5)
    scheduler, seen = make(torch.optim.lr_scheduler, optimizer), []
    for t in range(count):
        if t > 0:
            optimizer.step()
            scheduler.step()
        seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
    return np.array(seen)


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
@pytest.mark.parametrize(
    ("pct_start", "three_phase"), [*itertools.product([0.0, 0.17, 0.3, 0.5], [False, True]), (1.0, False)]
)
def test_one_cycle_against_torch(anneal: str, three_phase: bool, pct_start: float) -> None:
    keys: dict[str, Any] = {"total_steps": 60, "pct_start": pct_start, "three_phase": three_phase}
    shape = anneal.replace("cosine", "cos")
    theirs = run_torch(lambda lib, o: lib.OneCycleLR(o, 0.2, anneal_strategy=shape, **keys), 60)
    lr, momentum = schedules.one_cycle(0.2, anneal=anneal, **keys), schedules.one_cycle_momentum(anneal=anneal, **keys)
    np.testing.assert_allclose(lr(range(60)), theirs[:, 0], rtol=1e-9)
    np.testing.assert_allclose(momentum(range(60)), theirs[:, 1], rtol=1e-13)
    assert lr(59) == lr(60) == lr(10**9), "the last value is held"
    assert not np.allclose(lr(range(1, 61)), theirs[:, 0], rtol=1e-3)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize("down", [None, 7])
def test_cyclic_against_torch(mode: str, down: int | None) -> None:
    keys: dict[str, Any] = {"mode": mode, "gamma": 0.97, "step_size_down": down}
    theirs = run_torch(lambda lib, o: lib.CyclicLR(o, 0.01, 0.1, step_size_up=4, **keys), 60)
    np.testing.assert_allclose(schedules.cyclic(0.01, 0.1, 4, **keys)(range(60)), theirs[:, 0], rtol=1e-12)
    np.testing.assert_allclose(schedules.cyclic(0.9, 0.8, 4, **keys)(range(60)), theirs[:, 1], rtol=1e-12)
    assert not np.allclose(schedules.cyclic(0.01, 0.1, 4, **keys)(range(1, 61)), theirs[:, 0], rtol=1e-3)


def test_cosine_keeps_its_digits_near_the_end() -> None:
    """One step before the end `(1 + cos(x)) / 2` in double has 6 digits left, ours all of them."""
    mpmath = pytest.importorskip("mpmath", reason="mpmath is not installed")
    total = 100_000
    decays = {
        "cosine": (schedules.cosine_decay(0.1, total), 0),
        "after a warm-up": (schedules.warmup_cosine_decay(0.0, 0.1, 1000, 1000 + total), 1000),
    }
    with mpmath.workdps(50):
        for (name, (decay, begin)), t in itertools.product(decays.items(), (total // 2, total - 10, total - 1)):
            exact = mpmath.mpf(0.1) * (1 + mpmath.cos(mpmath.pi * t / total)) / 2
            assert abs(decay(begin + t) / exact - 1) < 1e-14, (name, t)
            assert decay(begin + total) == 0


def test_restarts_are_on_time() -> None:
    """Among them t = 1210, 295240 and 7971610 for (10, x3), which a logarithm in double misses by one."""
    for first, multiplier, count in ((10, 3, 28), (1000, 2, 40), (7, 4, 23), (7, 1, 2000)):
        schedule = schedules.cosine_decay_restarts(0.1, first, multiplier)
        lengths = [first * multiplier**i for i in range(count)]
        restarts = [sum(lengths[:i]) for i in range(count)] if multiplier > 1 else [first * i for i in range(count)]
        assert multiplier != 3 or {1210, 295240, 7971610} <= set(restarts)
        np.testing.assert_array_equal(schedule(restarts), 0.1)
        before = np.sin(np.pi / 2 / np.array(lengths)) ** 2 * 0.1
        np.testing.assert_allclose(schedule([t - 1 for t in restarts[1:]]), before[:-1], rtol=1e-6, atol=1e-17)
        heights = schedules.cosine_decay_restarts(1.0, first, multiplier, 0.5)(restarts)
        np.testing.assert_array_equal(heights, 0.5 ** np.arange(count))
    far = np.array([0, 1, 48]) + 49 * 10**12
    np.testing.assert_array_equal(schedules.cosine_decay_restarts(0.1, 49, 1)(far),
                                  schedules.cosine_decay_restarts(0.1, 49, 1)([0, 1, 48]))  # fmt: skip


def test_ends_are_exact() -> None:
    """No rounding where a schedule says that it has arrived."""
    decay = schedules.warmup_cosine_decay(0.3, 0.7, 10, 97, 1e-3)
    assert decay([0, 10, 97, 10**9]).tolist() == [0.3, 0.7, 1e-3, 1e-3]
    assert schedules.cosine_decay(0.7, 97, 0.1)([0, 97]).tolist() == pytest.approx([0.7, 0.07], rel=2e-16)
    assert schedules.polynomial_decay(0.7, 97, 0.3)([97, 98]).tolist() == [0.3, 0.3]
    assert schedules.linear_warmup(0.7, 97, 0.1, first=1)(96) == 0.7
    assert schedules.linear_warmup(0.7, 0, 0.1)(0) == schedules.linear_warmup(0.7, 0, first=1)(0) == 0.7
    assert schedules.one_cycle(0.7, 100)([0, 29, 99]).tolist() == [0.7 / 25, 0.7, 0.7 / 25 / 1e4]
    assert schedules.one_cycle(0.7, 4, pct_start=0.25)(0) == 0.7, "PyTorch divides by zero here"


def test_parameters_as_values() -> None:
    """A value may be a parameter, or any other expression."""
    one = schedules.parameter("one", 1.0)
    for make in (
        lambda x: schedules.constant(0.1 * x),
        lambda x: schedules.exponential_decay(0.1 * x, 10, 0.9, end_value=0.05 * x),
        lambda x: schedules.polynomial_decay(0.1 * x, 100, 0.01 * x),
        lambda x: schedules.cosine_decay(0.1 * x, 100),
        lambda x: schedules.linear_warmup(0.1 * x, 100, 0.01 * x),
        lambda x: schedules.warmup_cosine_decay(0.01 * x, 0.1 * x, 10, 100, 0.02 * x),
        lambda x: schedules.one_cycle(0.1 * x, 100),
        lambda x: schedules.one_cycle_momentum(100, base_momentum=0.8 * x, max_momentum=0.9 * x),
        lambda x: schedules.cyclic(0.01 * x, 0.1 * x, 10),
        lambda x: schedules.cosine_decay_restarts(0.1 * x, 10),
        lambda x: schedules.join([0.1 * x, 0.2 * x], [50]),
    ):
        np.testing.assert_array_equal(make(one)(range(150)), make(1.0)(range(150)))
    product = schedules.linear_warmup(1, 10) * schedules.cosine_decay(0.1, 100)
    assert product(5) == 0.5 * schedules.cosine_decay(0.1, 100)(5)


def test_join_refuses_an_accumulator_that_starts_late() -> None:
    memory = schedules.accumulator("memory", 1.0, lambda value: 0.5 * value)
    assert schedules.join([memory, 7.0], [2])(range(4)).tolist() == [1.0, 0.5, 7.0, 7.0]
    with pytest.raises(ValueError, match="accumulator 'memory' starts at the first update, not at step 2"):
        schedules.join([7.0, memory + schedules.step], [2])


def test_join_of_many() -> None:
    """A join of a join, of schedules that share a part, and of more pieces than the stack is deep."""
    inner = schedules.join([schedules.step, 10 + schedules.step], [3])
    assert schedules.join([inner, inner], [5])(range(10)).tolist() == [0, 1, 2, 10, 11] * 2
    ends = list(range(3, 1500, 3))
    many = schedules.join([i + 0 * schedules.step for i in range(500)], ends)
    assert many(range(1500)).tolist() == [t // 3 for t in range(1500)]
    many = schedules.piecewise_constant(ends, range(500), boundary="right")
    assert many(range(1500)).tolist() == [t // 3 for t in range(1500)]


def test_sampled_calls_once_a_step_and_holds_the_last() -> None:
    calls = []
    schedule = schedules.sampled(lambda k: calls.append(k) or np.float32(k), 5)
    assert calls == [0, 1, 2, 3, 4]
    assert schedule([0, 3, 4, 5, 10**9]).tolist() == [0, 3, 4, 4, 4]


GOOD: dict[Callable[..., Expr], dict[str, Any]] = {
    schedules.constant: {"value": 1.0},
    schedules.exponential_decay: {"lr": 1.0, "decay_steps": 10, "decay_rate": 0.5, "end_value": 0.1},
    schedules.polynomial_decay: {"lr": 1.0, "decay_steps": 10, "end_lr": 0.1, "power": 2.0},
    schedules.cosine_decay: {"lr": 1.0, "decay_steps": 10, "alpha": 0.1},
    schedules.linear_warmup: {"peak": 1.0, "warmup_steps": 10, "init": 0.1, "first": 1},
    schedules.warmup_cosine_decay: {
        "init_value": 0.1, "peak_value": 1.0, "warmup_steps": 10, "decay_steps": 20, "end_value": 0.1},
    schedules.one_cycle: {
        "max_lr": 1.0, "total_steps": 10, "pct_start": 0.3, "div_factor": 2.0, "final_div_factor": 2.0,
        "anneal": "linear"},
    schedules.one_cycle_momentum: {
        "total_steps": 10, "base_momentum": 0.8, "max_momentum": 0.9, "pct_start": 0.3, "anneal": "linear"},
    schedules.cyclic: {
        "base_lr": 0.1, "max_lr": 1.0, "step_size": 10, "step_size_down": 5, "mode": "exp_range", "gamma": 0.9},
    schedules.cosine_decay_restarts: {
        "lr": 1.0, "first_decay_steps": 10, "t_mul": 2.0, "m_mul": 0.5, "alpha": 0.1},
}  # fmt: skip
POSITIVE = ("decay_steps", "total_steps", "step_size", "step_size_down", "first_decay_steps", "decay_rate", "power",
            "div_factor", "final_div_factor")  # fmt: skip
FRACTIONS = ("alpha", "pct_start", "gamma", "base_momentum", "max_momentum")
BAD: dict[str, list[Any]] = {
    **{name: [0, -1, -0.5] for name in POSITIVE},
    **{name: [-0.1, 1.5] for name in FRACTIONS},
    "t_mul": [0.5, 0, -2],
    "first": [2, -1, "0"],
    "anneal": ["cos", "", None],
    "mode": ["triangular3", "", None],
}
CHOICES = ("first", "anneal", "mode")
REFUSED = [
    (function, name, value)
    for function, good in GOOD.items()
    for name in good
    for value in (*BAD.get(name, [-1, -1e-300]), *(() if name in CHOICES else (math.nan, math.inf, -math.inf)))
]


def says(name: str, value: Any) -> str:
    """What a message must hold: the argument, what is allowed, and the value as it was given or as a float."""
    text = re.escape(repr(value))
    as_float = re.escape(repr(float(value))) if isinstance(value, int) else text
    return f"^{name} must be .+, got ({text}|{as_float})$"


@pytest.mark.parametrize(("function", "name", "value"), REFUSED)
def test_bad_numbers_are_refused(function: Callable[..., Expr], name: str, value: Any) -> None:
    assert isinstance(function(**GOOD[function]), Expr)
    with pytest.raises(ValueError, match=says(name, value)):
        function(**GOOD[function] | {name: value})


@pytest.mark.parametrize("function", GOOD)
def test_what_is_no_number_is_refused(function: Callable[..., Expr]) -> None:
    for name in GOOD[function]:
        for value in () if name in CHOICES else ("0.1", True, None, np.array([0.1]), 1j):
            if (name, value) != ("end_value", None) and (name, value) != ("step_size_down", None):
                with pytest.raises(TypeError, match=f"^{name} must be a number, got "):
                    function(**GOOD[function] | {name: value})
    for name in set(GOOD[function]) & {"lr", "peak", "peak_value", "max_lr", "base_lr", "value", "max_momentum"}:
        with pytest.raises(TypeError, match=rf"^{name} is a plain callable.+schedules\.sampled\(callable, steps\)"):
            function(**GOOD[function] | {name: abs})
    for name in set(GOOD[function]) & {"decay_steps", "total_steps", "step_size", "first_decay_steps", "warmup_steps"}:
        with pytest.raises(TypeError, match=f"^{name} must be a number, got step"):
            function(**GOOD[function] | {name: schedules.step})


REFUSED_CALLS: list[tuple[Callable[[], Expr], str]] = [
    (lambda: schedules.warmup_cosine_decay(0, 1, 10, 10), r"decay_steps must be > warmup_steps=10, got 10"),
    (lambda: schedules.warmup_cosine_decay(0, 1, 10, 9), r"decay_steps must be > warmup_steps=10, got 9"),
    (lambda: schedules.one_cycle(1, 9, pct_start=0.6, three_phase=True), r"pct_start must be .+\[0, 0.5\], got 0.6"),
    (lambda: schedules.cosine_decay_restarts(1, 10, 1.001), "multiplier 1.001"),
    (lambda: schedules.piecewise_constant([1], [1, 2], boundary="top"), "boundary must be 'left' or 'right', got 't"),
    (lambda: schedules.piecewise_constant([1], [1, -2]), "value 1 must be .+, got -2"),
    (lambda: schedules.piecewise_constant([1], [math.nan, 2]), "value 0 must be .+, got nan"),
    (lambda: schedules.sampled(lambda k: 3 - k, 5), r"function\(4\) must be .+, got -1.0"),
    (lambda: schedules.sampled(lambda k: math.nan, 5), r"function\(0\) must be .+, got nan"),
    (lambda: schedules.sampled(float, 2.5), "steps must be a whole number up to 10,000,000, got 2.5"),
    (lambda: schedules.sampled(float, 0), "steps must be .+ > 0, got 0"),
    *(
        (lambda make=make, places=places: make(places), "boundaries must be .+ rising and one fewer than the 3 ")
        for make in (lambda b: schedules.piecewise_constant(b, [1, 2, 3]), lambda b: schedules.join([1, 2, 3], b))
        for places in ([5, 3], [5, 5], [-1, 5], [5], [1, 2, 3], [], [1, math.nan], [math.nan, 1], [1, math.inf])
    ),
    (lambda: schedules.join([], []), "one fewer than the 0 schedules"),
    (lambda: schedules.piecewise_constant([], []), "one fewer than the 0 values"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), REFUSED_CALLS)
def test_bad_combinations_are_refused(call: Callable[[], Expr], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
    with pytest.raises(TypeError, match="boundary 1 must be a number, got step"):
        schedules.join([1, 2, 3], [1, schedules.step])
    with pytest.raises(TypeError, match="schedule 1 is a plain callable"):
        schedules.join([1, abs], [1])


@pytest.mark.parametrize("module", [schedules, *schedules.FAMILIES, expressions])
def test_doctests(module: ModuleType) -> None:
    assert set(getattr(module, "__all__", [])) <= set(dir(module))
    outcome = doctest.testmod(module)
    assert outcome.failed == 0
    assert outcome.attempted > 1


def test_every_schedule_has_an_example() -> None:
    own = [getattr(family, name) for family in schedules.FAMILIES for name in family.__all__]
    assert len(own) >= 13
    assert [function.__name__ for function in own if ">>>" not in function.__doc__] == []
