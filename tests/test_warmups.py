"""Schedules with a warm-up, and cycles of decays: their formulas in 40 digits, their ends, their bad arguments."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpuadam import schedules
from gpuadam.expressions import Expr
from gpuadam.schedules import step

mpmath = pytest.importorskip("mpmath", reason="mpmath is not installed")
mpmath.mp.dps = 40
mpf = mpmath.mpf

FAR = (2**31, 2**40)
LENGTH = 100_000  # where a cosine in the plain form has lost its digits one step before the end


def part(k: int, begin: float, finish: float) -> Any:
    return min(max((mpf(k) - begin) / (finish - begin), 0), 1)


def cosine(x: Any) -> Any:
    return (1 - mpmath.cos(mpmath.pi * x)) / 2


def up(shape: Callable[[Any], Any], low: float = 0.0, first: int = 0) -> Callable[[int], Any]:
    return lambda k: low + (1 - mpf(low)) * shape(part(k + first, 0, 10))


def after(fall: Callable[[int], Any], low: float = 0.0, warmup: int = 10) -> Callable[[int], Any]:
    """A line of so many steps from `low` to 1, then `fall` of the steps since."""
    return lambda k: low + (1 - mpf(low)) * k / warmup if k < warmup else fall(k - warmup)


def fall_of_wsd(decay: Callable[[Any], Any]) -> Callable[[int], Any]:
    return after(lambda k: mpf(0.25) + (1 - mpf(0.25)) * decay(part(k, 20, 20 + LENGTH)))


def in_cycles(decay: Callable[[Any], Any], k: int) -> Any:
    """Cycles of 10, 20 and 40 steps from 1, 0.5 and 0.25 to 0.125."""
    for i, begin in enumerate((0, 10, 30)):
        if begin <= k < begin + 10 * 2**i:
            return mpf(0.125) + (mpf(0.5) ** i - mpf(0.125)) * decay(mpf(k - begin) / (10 * 2**i))
    return mpf(0.125)


CYCLES: dict[str, Any] = {"cycle_mul": 2, "cycle_decay": 0.5, "cycle_limit": 3}
# name: ours, the formula, where its pieces meet
CASES: dict[str, tuple[Expr, Callable[[int], Any], tuple[int, ...]]] = {
    "linear": (schedules.warmup(1, 10, 0.3), up(lambda x: x, 0.3), (10,)),
    "linear from 1": (schedules.warmup(1, 10, 0.3, first=1), up(lambda x: x, 0.3, 1), (9,)),
    "constant": (schedules.warmup(1, 10, 0.3, shape="constant"), lambda k: 0.3 if k < 10 else 1, (10,)),
    "constant from 1": (
        schedules.warmup(1, 10, 0.3, shape="constant", first=1), lambda k: 0.3 if k < 9 else 1, (9,)),
    "cosine": (schedules.warmup(1, 10, 0.3, shape="cosine"), up(cosine, 0.3), (10,)),
    "cosine from 1": (schedules.warmup(1, 10, shape="cosine", first=1), up(cosine, 0, 1), (9,)),
    "1-sqrt": (schedules.warmup(1, 10, 0.3, shape="1-sqrt"), up(lambda x: 1 - mpmath.sqrt(1 - x), 0.3), (10,)),
    "exponential": (
        schedules.warmup(1, 10, 0.001, shape="exponential"), lambda k: mpf(0.001) ** (1 - part(k, 0, 10)), (10,)),
    "long 1-sqrt": (
        schedules.warmup(1, LENGTH, shape="1-sqrt"), lambda k: 1 - mpmath.sqrt(1 - part(k, 0, LENGTH)), (LENGTH,)),
    "exponential warm-up": (
        schedules.exponential_warmup(2, 1e6), lambda k: 2 * (1 - mpmath.exp(-mpf(k + 1) / 10**6)), (10**6,)),
    "untuned exponential": (
        schedules.untuned_exponential_warmup(1, 0.75), lambda k: 1 - mpmath.exp(-mpf(k + 1) / 4), (4,)),
    "untuned linear": (schedules.untuned_linear_warmup(1, 0.75), lambda k: min(mpf(k + 1) / 8, 1), (7,)),
    "gradual": (
        schedules.gradual_warmup(1, 5, 8, schedules.cosine_decay(5, 20)),
        lambda k: 1 + mpf(k) / 2 if k < 8 else 5 * cosine(1 - part(k, 8, 28)), (8, 28)),
    "gradual from 0": (
        schedules.gradual_warmup(3, 1, 8, 3 / (1 + step)),
        lambda k: mpf(3) * k / 8 if k < 8 else mpf(3) / (1 + k - 8), (8,)),
    "linear decay": (
        schedules.warmup_linear_decay(0.5, 1, 10, 10 + LENGTH, 0.25),
        after(lambda k: 1 - mpf(0.75) * part(k, 0, LENGTH), 0.5), (10, 10 + LENGTH)),
    "polynomial decay": (
        schedules.warmup_polynomial_decay(0.5, 1, 10, 10 + LENGTH, power=2.5),
        after(lambda k: (1 - part(k, 0, LENGTH)) ** 2.5, 0.5), (10, 10 + LENGTH)),
    "cosine decay": (
        schedules.warmup_cosine_decay(0.5, 1, 10, 10 + LENGTH),
        after(lambda k: cosine(1 - part(k, 0, LENGTH)), 0.5), (10, 10 + LENGTH)),
    "cosine decay with exponent": (
        schedules.warmup_cosine_decay(0.5, 1, 10, 10 + LENGTH, 0.25, 1.5),
        after(lambda k: mpf(0.25) + mpf(0.75) * cosine(1 - part(k, 0, LENGTH)) ** 1.5, 0.5), (10, 10 + LENGTH)),
    "cosine decay in 5/2 waves": (
        schedules.warmup_cosine_decay(0.5, 1, 10, 10 + LENGTH, 0, num_cycles=2.5),
        after(lambda k: (1 + mpmath.cos(5 * mpmath.pi * part(k, 0, LENGTH))) / 2, 0.5), (10, 10 + LENGTH)),
    "cosine decay in 2 waves that go on": (
        schedules.warmup_cosine_decay(0.5, 1, 10, 18, 0.25, num_cycles=2, beyond="continue"),
        after(lambda k: mpf(0.25) + mpf(0.75) * (1 + mpmath.cos(4 * mpmath.pi * k / 8)) / 2, 0.5), (10, 18)),
    "hard restarts": (
        schedules.warmup_cosine_decay_restarts(0.5, 1, 10, 42, 0.25, num_cycles=2.5),
        after(lambda k: mpf(0.25) + mpf(0.75) * (cosine(1 - mpf(k * 10 % 128) / 128) if k < 32 else 0), 0.5),
        (10, 23, 36, 42)),
    "exponential decay": (
        schedules.warmup_exponential_decay(0.5, 1, 10, 8, 0.5, 3, staircase=True, end_value=0.05),
        after(lambda k: max(mpf(0.5) ** (max(k - 3, 0) // 8), mpf(0.05)), 0.5), (10, 13, 21, 29, 53)),
    "exponential growth": (
        schedules.warmup_exponential_decay(0.5, 1, 10, 8, 1.5, end_value=3),
        after(lambda k: min(mpf(1.5) ** min(mpf(k) / 8, 9), 3), 0.5), (10, 18, 31, 32)),
    "slanted triangular": (
        schedules.slanted_triangular(1, 99, 0.125, 8),
        lambda k: (1 + 7 * (mpf(k) / 12 if k < 12 else 1 - part(k, 12, 96))) / 8, (12, 96, 99)),
    "inverse_sqrt": (
        schedules.inverse_sqrt(1, 10, init=0.5), after(lambda k: 1 / mpmath.sqrt(mpf(k + 10) / 10), 0.5), (10,)),
    "inverse_sqrt at its own scale": (
        schedules.inverse_sqrt(1, 10, 700, 0.5), after(lambda k: 1 / mpmath.sqrt(1 + mpf(k) / 700), 0.5), (10,)),
    "inverse_sqrt without warm-up": (
        schedules.inverse_sqrt(1, 0), lambda k: 1 / mpmath.sqrt(1 + mpf(k) / 10_000), (10_000,)),
    "noam": (
        schedules.noam(512, 4000, 2), lambda k: 2 * min((mpf(k) + 1) ** -0.5, (k + 1) * mpf(4000) ** -1.5)
        / mpmath.sqrt(512), (3999,)),
    "rsqrt": (schedules.rsqrt(1, 50, first=1), lambda k: mpmath.sqrt(mpf(50) / max(k + 1, 50)), (49,)),
    "power": (
        schedules.power_schedule(1, 5, 0.5, 10), lambda k: min(mpf(k) / 10, 1, 5 / mpmath.sqrt(max(k, 1))), (10, 25)),
    "trapezoid": (
        schedules.trapezoid(1, 10, LENGTH, LENGTH + 30, 0.25),
        fall_of_wsd(lambda x: 1 - x), (10, 30, 30 + LENGTH)),
    "cosine cycles": (
        schedules.cosine_cycles(1, 10, 0.125, k=2, **CYCLES),
        lambda k: in_cycles(lambda x: (1 + mpmath.cos(mpmath.pi * x**2)) / 2, k), (10, 30, 70)),
    "cosine cycles without end": (
        schedules.cosine_cycles(1, 8, cycle_limit=None), lambda k: cosine(1 - mpf(k % 8) / 8), (8, 16)),
    "polynomial cycles": (
        schedules.polynomial_cycles(1, 10, 0.125, 2, k=3, **CYCLES),
        lambda k: in_cycles(lambda x: (1 - x**3) ** 2, k), (10, 30, 70)),
    "tanh": (
        schedules.tanh_decay(1, 10, 0.125, lower=-5, upper=4, **CYCLES),
        lambda k: in_cycles(lambda x: (1 - mpmath.tanh(-5 + 9 * x)) / 2, k), (10, 30, 70)),
}  # fmt: skip
DECAYS: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "linear": ({}, lambda x: 1 - x),
    "cosine": ({}, lambda x: cosine(1 - x)),
    "1-sqrt": ({}, lambda x: 1 - mpmath.sqrt(x)),
    "power": ({"decay_power": 3}, lambda x: 1 - x**3),
    "exponential": ({"decay_ratio": 0.25}, lambda x: (mpf(0.25) ** x - mpf(0.25)) / mpf(0.75)),
}
for name, (keys, decay) in DECAYS.items():
    CASES[f"wsd to 0, {name}"] = (
        schedules.wsd(1, 10, 20, LENGTH, decay_shape=name, **keys),
        after(lambda k, decay=decay: decay(part(k, 20, 20 + LENGTH))), (10, 30, 30 + LENGTH))  # fmt: skip
    CASES[f"wsd {name}, sinking"] = (
        schedules.wsd(1, 10, 20, 50, stable_power=0.75, timescale=8, end=0.25, decay_shape=name, **keys),
        after(lambda k, decay=decay: mpf(0.25) + (max((1 + mpf(k) / 8) ** -0.75, 0.25) - mpf(0.25))
              * decay(part(k, 20, 70))), (10, 30, 80))  # fmt: skip
CANCELLING = ("cycles", "tanh", "hard restarts", "sinking", "that go on")  # what is left of a cycle is 1 - what is done


def steps_of(joints: tuple[int, ...]) -> list[int]:
    around = {joint + offset for joint in joints for offset in (-2, -1, 0, 1, 2)}
    between = {(a + b) // 2 for a, b in zip((0, *joints), joints, strict=False)}
    return sorted(k for k in {0, 1, 2, 5, *around, *between, *FAR} if k >= 0)


@pytest.mark.parametrize("name", CASES)
def test_against_the_formula(name: str) -> None:
    """To 2e-14 of the value itself; the same schedule one step late must be told apart."""
    ours, formula, joints = CASES[name]
    steps = steps_of(joints)
    exact = [mpf(formula(k)) for k in steps]
    slack = 1e-15 * float(max(exact)) if any(word in name for word in CANCELLING) else 0
    wrong = [
        k for k, v, x in zip(steps, ours(steps), exact, strict=True) if not abs(mpf(v) - x) <= 2e-14 * abs(x) + slack
    ]
    assert not wrong, [(k, ours(k), float(formula(k))) for k in wrong]
    late = ours([k + 1 for k in steps])
    assert any(abs(v - x) > 1e-9 * abs(x) for v, x in zip(late, exact, strict=True))


# Made with `first`: a schedule, the warm-up's steps, and the values at its end and beyond.
FIRST: dict[str, tuple[Callable[[int], Expr], int]] = {
    "warmup": (lambda first: schedules.warmup(0.7, 7, 0.1, first=first), 7),
    "linear_warmup": (lambda first: schedules.linear_warmup(0.7, 7, 0.1, first=first), 7),
    "cosine": (lambda first: schedules.warmup(0.7, 7, 0.1, shape="cosine", first=first), 7),
    "1-sqrt": (lambda first: schedules.warmup(0.7, 7, 0.1, shape="1-sqrt", first=first), 7),
    "exponential": (lambda first: schedules.warmup(0.7, 7, 0.1, shape="exponential", first=first), 7),
    "constant": (lambda first: schedules.warmup(0.7, 7, 0.1, shape="constant", first=first), 7),
    "warmup_linear_decay": (lambda first: schedules.warmup_linear_decay(0.1, 0.7, 7, 19, 0.3, first=first), 7),
    "warmup_polynomial_decay": (
        lambda first: schedules.warmup_polynomial_decay(0.1, 0.7, 7, 19, 0.3, 2, first=first), 7),
    "warmup_cosine_decay": (lambda first: schedules.warmup_cosine_decay(0.1, 0.7, 7, 19, 0.3, first=first), 7),
    "warmup_cosine_decay_restarts": (
        lambda first: schedules.warmup_cosine_decay_restarts(0.1, 0.7, 7, 19, 0.3, 3, first=first), 7),
    "warmup_exponential_decay": (
        lambda first: schedules.warmup_exponential_decay(0.1, 0.7, 7, 4, 0.5, 2, first=first), 7),
    "slanted_triangular": (lambda first: schedules.slanted_triangular(0.7, 70, first=first), 7),
    "inverse_sqrt": (lambda first: schedules.inverse_sqrt(0.7, 7, init=0.1, first=first), 7),
    "noam": (lambda first: schedules.noam(4, 7, 0.7 * 28**0.5, first=first), 7),
    "rsqrt": (lambda first: schedules.rsqrt(0.7, 7, first=first), 7),
    "power_schedule": (lambda first: schedules.power_schedule(0.7, 2, 0.5, 7, first=first), 7),
}  # fmt: skip


@pytest.mark.parametrize("name", FIRST)
def test_first_moves_the_whole_schedule_by_a_step(name: str) -> None:
    make, warmup = FIRST[name]
    np.testing.assert_allclose(make(1)(range(60)), make(0)(range(1, 61)), rtol=3e-16)
    assert make(0)(warmup) == make(1)(warmup - 1) == 0.7, "the peak, to the bit"
    assert name == "rsqrt" or make(0)(warmup - 1) < 0.7


@pytest.mark.parametrize("first", [0, 1])
def test_no_warm_up_begins_at_the_peak(first: int) -> None:
    for shape in (*schedules.warmups.SHAPES, "constant"):
        assert schedules.warmup(0.7, 0, 0.1, shape=shape, first=first)([0, 9]).tolist() == [0.7, 0.7]
    assert schedules.warmup_constant(0.1, 0.7, 0)(0) == 0.7
    assert schedules.gradual_warmup(0.7, 3, 0)(0) == pytest.approx(2.1, rel=1e-15)
    assert schedules.wsd(0.7, 0, 3, 4)(0) == 0.7


@pytest.mark.parametrize("shape", [*schedules.warmups.SHAPES, "constant"])
def test_a_warm_up_begins_and_ends_to_the_bit(shape: str) -> None:
    assert schedules.warmup(0.7, 97, 0.007, shape=shape)([0, 97, *FAR]).tolist() == [0.007, 0.7, 0.7, 0.7]


def test_ends_are_exact_and_stay() -> None:
    ends = {
        19: [
            schedules.warmup_linear_decay(0.1, 0.7, 7, 19, 0.3),
            schedules.warmup_polynomial_decay(0.1, 0.7, 7, 19, 0.3, 1.7),
            schedules.warmup_cosine_decay(0.1, 0.7, 7, 19, 0.3),
            schedules.warmup_cosine_decay(0.1, 0.7, 7, 19, 0.3, 1.5, num_cycles=1.5),
            schedules.warmup_cosine_decay_restarts(0.1, 0.7, 7, 19, 0.3, 2.5),
            schedules.cosine_cycles(0.7, 19, 0.3, k=1.3),
            schedules.polynomial_cycles(0.7, 19, 0.3, 2.5),
            schedules.tanh_decay(0.7, 19, 0.3),
            *(schedules.wsd(0.7, 7, 3, 9, end=0.3, decay_shape=shape) for shape in DECAYS),
            schedules.trapezoid(0.7, 7, 9, 19, 0.3),
        ]
    }
    for finish, made in ends.items():
        for schedule in made:
            assert schedule([finish, finish + 1, *FAR]).tolist() == [0.3] * 4
            assert schedule(finish - 1) != 0.3


def test_goyal_and_ildoonet_by_hand() -> None:
    """`i * eta / m` for i = 1 .. m; ildoonet's two kinds, and what follows from its own step 0 on."""
    assert schedules.linear_warmup(0.5, 4, first=1)(range(6)).tolist() == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    assert schedules.gradual_warmup(0.5, 1, 4)(range(6)).tolist() == [0, 0.125, 0.25, 0.375, 0.5, 0.5]
    assert schedules.gradual_warmup(0.5, 3, 4)(range(6)).tolist() == [0.5, 0.75, 1, 1.25, 1.5, 1.5]
    halving = schedules.exponential_decay(1.5, 1, 0.5)
    assert schedules.gradual_warmup(0.5, 3, 4, halving)(range(7)).tolist() == [0.5, 0.75, 1, 1.25, 1.5, 0.75, 0.375]


def test_parameters_as_values() -> None:
    one = schedules.parameter("one", 1.0)
    for make in (
        *(lambda x, s=s: schedules.warmup(0.1 * x, 9, 0.01 * x, shape=s) for s in schedules.warmups.SHAPES),
        lambda x: schedules.warmup_constant(0.01 * x, 0.1 * x, 9),
        lambda x: schedules.gradual_warmup(0.1 * x, 4, 9, 0.4 * x),
        lambda x: schedules.warmup_linear_decay(0.01 * x, 0.1 * x, 9, 50, 0.02 * x),
        lambda x: schedules.warmup_polynomial_decay(0.01 * x, 0.1 * x, 9, 50, 0.02 * x, 2),
        lambda x: schedules.warmup_cosine_decay_restarts(0.01 * x, 0.1 * x, 9, 50, 0.02 * x, 2),
        lambda x: schedules.warmup_exponential_decay(0.01 * x, 0.1 * x, 9, 50, 0.5, end_value=0.02 * x),
        lambda x: schedules.slanted_triangular(0.1 * x, 50),
        lambda x: schedules.inverse_sqrt(0.1 * x, 9, init=0.01 * x),
        lambda x: schedules.noam(64, 9, 0.1 * x),
        lambda x: schedules.power_schedule(0.1 * x, 0.4 * x, 0.5, 9),
        lambda x: schedules.wsd(0.1 * x, 9, 20, 20, init=0.01 * x, end=0.02 * x, stable_power=0.5),
        lambda x: schedules.cosine_cycles(0.1 * x, 30, 0.01 * x, cycle_limit=2),
    ):
        np.testing.assert_array_equal(make(one)(range(80)), make(1.0)(range(80)))


GOOD: dict[Callable[..., Expr], dict[str, Any]] = {
    schedules.warmup: {"peak": 1.0, "warmup_steps": 10, "init": 0.1, "shape": "exponential", "first": 1},
    schedules.warmup_constant: {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 10},
    schedules.exponential_warmup: {"peak": 1.0, "time_constant": 10},
    schedules.untuned_exponential_warmup: {"peak": 1.0, "beta2": 0.9},
    schedules.untuned_linear_warmup: {"peak": 1.0, "beta2": 0.9},
    schedules.gradual_warmup: {"lr": 1.0, "multiplier": 2.0, "warmup_steps": 10, "after": 2.0},
    schedules.warmup_linear_decay: {
        "init_value": 0.1, "peak_value": 1.0, "warmup_steps": 10, "decay_steps": 20, "end_value": 0.1, "first": 1},
    schedules.warmup_polynomial_decay: {
        "init_value": 0.1, "peak_value": 1.0, "warmup_steps": 10, "decay_steps": 20, "end_value": 0.1, "power": 2,
        "first": 1},
    schedules.warmup_cosine_decay: {
        "init_value": 0.1, "peak_value": 1.0, "warmup_steps": 10, "decay_steps": 20, "end_value": 0.1, "exponent": 2,
        "num_cycles": 2, "beyond": "continue", "first": 1},
    schedules.warmup_cosine_decay_restarts: {
        "init_value": 0.1, "peak_value": 1.0, "warmup_steps": 10, "decay_steps": 20, "end_value": 0.1,
        "num_cycles": 2, "first": 1},
    schedules.warmup_exponential_decay: {
        "init_value": 0.1, "peak_value": 1.0, "warmup_steps": 10, "transition_steps": 20, "decay_rate": 0.5,
        "transition_begin": 3, "end_value": 0.1, "first": 1},
    schedules.slanted_triangular: {"max_lr": 1.0, "total_steps": 100, "cut_frac": 0.1, "ratio": 32, "first": 1},
    schedules.inverse_sqrt: {"peak": 1.0, "warmup_steps": 10, "timescale": 20, "init": 0.1, "first": 1},
    schedules.noam: {"model_size": 512, "warmup_steps": 10, "factor": 2.0, "first": 0},
    schedules.rsqrt: {"lr": 1.0, "timescale": 10, "first": 1},
    schedules.power_schedule: {"max_lr": 1.0, "amplitude": 2.0, "power": 0.5, "warmup_steps": 10, "first": 1},
    schedules.wsd: {
        "peak": 1.0, "warmup_steps": 10, "stable_steps": 20, "decay_steps": 20, "init": 0.1, "end": 0.1,
        "warmup_shape": "exponential", "stable_power": 0.5, "timescale": 20, "decay_shape": "power",
        "decay_power": 2.0, "decay_ratio": 0.2},
    schedules.trapezoid: {"peak": 1.0, "warmup_steps": 10, "decay_steps": 20, "total_steps": 50, "end": 0.1},
    schedules.cosine_cycles: {
        "lr": 1.0, "decay_steps": 10, "end_value": 0.1, "k": 2, "cycle_mul": 2, "cycle_decay": 0.5, "cycle_limit": 2},
    schedules.polynomial_cycles: {
        "lr": 1.0, "decay_steps": 10, "end_value": 0.1, "power": 2, "k": 2, "cycle_mul": 2, "cycle_decay": 0.5,
        "cycle_limit": 2},
    schedules.tanh_decay: {
        "lr": 1.0, "decay_steps": 10, "end_value": 0.1, "lower": -3, "upper": 2, "cycle_mul": 2, "cycle_decay": 0.5,
        "cycle_limit": 2},
}  # fmt: skip
POSITIVE = ("decay_steps", "total_steps", "transition_steps", "decay_rate", "power", "exponent", "num_cycles", "k",
            "time_constant", "timescale", "model_size", "decay_power")  # fmt: skip
CHOICES = ("shape", "warmup_shape", "decay_shape", "beyond", "first")
OPTIONAL = ("after", "end_value", "timescale", "cycle_limit")
BAD: dict[str, list[Any]] = {
    **{name: [0, -1, -0.5] for name in POSITIVE},
    **{name: ["", "triangle", None, 1] for name in CHOICES},
    "first": [2, -1, "0"],
    "ratio": [0.5, 0, -2],
    "multiplier": [0.999, 0, -2],
    "cycle_mul": [0.5, 0, -2],
    "cycle_limit": [0, 1.5, -1],
    "beta2": [1, -0.1, 1.5],
    "cut_frac": [0, 0.009, 1, 1.5, -0.1],
    "decay_ratio": [0, 1, -0.1],
    "lower": [2, 3],
    "upper": [-3, -4],
}
REFUSED = [
    (function, name, value)
    for function, good in GOOD.items()
    for name in good
    for value in (*BAD.get(name, [-1, -1e-300]), *(() if name in CHOICES else (math.nan, math.inf, -math.inf)))
]


@pytest.mark.parametrize(("function", "name", "value"), REFUSED)
def test_bad_arguments_are_refused(function: Callable[..., Expr], name: str, value: Any) -> None:
    assert isinstance(function(**GOOD[function]), Expr)
    named = "lower" if name == "upper" else name
    with pytest.raises(
        ValueError, match=f"^{named} must be .+, got {'' if name == 'upper' else re.escape(repr(value))}"
    ):
        function(**GOOD[function] | {name: value})


@pytest.mark.parametrize("function", GOOD)
def test_what_is_no_number_is_refused(function: Callable[..., Expr]) -> None:
    for name in set(GOOD[function]) - set(CHOICES):
        for value in ("0.1", True, np.array([0.1]), 1j, *(() if name in OPTIONAL else (None,))):
            with pytest.raises(TypeError, match=f"^{name} must be a number, got "):
                function(**GOOD[function] | {name: value})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *(
            (lambda make=make, finish=finish: make(0, 1, 10, finish),
             f"decay_steps must be > warmup_steps=10, got {finish}")
            for make in (
                schedules.warmup_linear_decay, schedules.warmup_polynomial_decay, schedules.warmup_cosine_decay,
                schedules.warmup_cosine_decay_restarts)
            for finish in (10, 9)
        ),
        (lambda: schedules.trapezoid(1, 10, 11, 20), "total_steps must be >= warmup_steps=10 .+, got 20"),
        (lambda: schedules.warmup(1, 10, shape="exponential"), "init must be finite and > 0, got 0.0"),
        (lambda: schedules.wsd(1, 10, 1, 1, warmup_shape="exponential"), "init must be finite and > 0, got 0.0"),
        (lambda: schedules.wsd(1, 0, 1, 1, stable_power=0.5), "timescale must be finite and > 0, got 0"),
        (lambda: schedules.noam(512, 0), "warmup_steps must be finite and > 0, got 0"),
        (lambda: schedules.rsqrt(1, 0), "timescale must be finite and > 0, got 0"),
        (lambda: schedules.slanted_triangular(1, 9), "cut_frac must be .+total_steps=9 at least one"),
        (lambda: schedules.cosine_cycles(1, 10, cycle_mul=1.001), "multiplier 1.001"),
        (lambda: schedules.gradual_warmup(1, 2, 5, schedules.accumulator("a", 1, lambda v: v)), "accumulator 'a'"),
    ],
)  # fmt: skip
def test_bad_combinations_are_refused(call: Callable[[], Expr], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
