"""Decays: their formulas written anew, at the first steps, the last ones and far beyond; their noise; bad arguments."""

import itertools
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from gpuadam import schedules
from gpuadam.expressions import Expr

mpmath = pytest.importorskip("mpmath", reason="mpmath is not installed")
mpf = mpmath.mpf
FAR = (2**31 - 1, 2**31, 2**40, 2**40 + 1)
Formula = Callable[[int], Any]


def cosine(part: Any) -> Any:
    return (1 + mpmath.cos(mpmath.pi * part)) / 2


def linear_cosine(t: int, length: int, periods: float, alpha: float, beta: float) -> Any:
    t = min(t, length)
    wave = cosine(2 * mpf(periods) * t / length)
    return mpf(0.3) * ((mpf(alpha) + mpf(length - t) / length) * wave + mpf(beta))


def through(knots: list[int], values: list[float], shape: Callable[[Any], Any]) -> Formula:
    def formula(t: int) -> Any:
        if t >= knots[-1]:
            return mpf(values[-1])
        i = max(sum(t >= knot for knot in knots) - 1, 0)
        part = mpf(max(t - knots[i], 0)) / (knots[i + 1] - knots[i])
        return values[i] + (mpf(values[i + 1]) - values[i]) * shape(part)

    return formula


def polynomial(t: int, length: int, end: float, power: float, begin: int = 0, cycle: bool = False) -> Any:
    t = max(t - begin, 0)
    total = length * max(math.ceil(mpf(t) / length), 1) if cycle else length
    return (mpf(0.3) - mpf(end)) * (1 - mpf(min(t, total)) / total) ** mpf(power) + mpf(end)


# name: ours, the formula, places where something happens, and the scale of what is lost near the end
CASES: dict[str, tuple[Expr, Formula, tuple[int, ...], float]] = {
    "constant": (schedules.constant(0.3), lambda t: mpf(0.3), (), 0),
    "step": (schedules.step_decay(0.3, 49, 0.9), lambda t: mpf(0.3) * mpf(0.9) ** (t // 49), (49, 98, 49 * 10**6), 0),
    "multi step": (
        schedules.multi_step_decay(0.3, [0, 30, 30, 80], 0.1),
        lambda t: mpf(0.3) * mpf(0.1) ** sum(t >= m for m in (0, 30, 30, 80)), (30, 80), 0),
    "multi step of several": (
        schedules.multi_step_decay(0.3, [30, 80], [0.5, 3]),
        lambda t: mpf(0.3) * (0.5 if t >= 30 else 1) * (3 if t >= 80 else 1), (30, 80), 0),
    "piecewise": (
        schedules.piecewise_constant([30, 80], [0.3, 0.0, 0.7]),
        lambda t: mpf(0.3 if t <= 30 else 0.0 if t <= 80 else 0.7), (30, 80), 0),
    "knots": (
        schedules.piecewise_interpolate([0, 50, 250], [0.0, 0.4, 0.1]),
        through([0, 50, 250], [0.0, 0.4, 0.1], lambda part: part), (50, 250), 0.4),
    "knots late": (
        schedules.piecewise_interpolate([20, 50, 51, 250], [0.3, 0.4, 0.1, 0.0], shape="cosine"),
        through([20, 50, 51, 250], [0.3, 0.4, 0.1, 0.0], lambda part: 1 - cosine(part)), (20, 50, 51, 250), 0.4),
    "exponential": (
        schedules.exponential_decay(0.3, 1000, 0.5), lambda t: mpf(0.3) * mpf(0.5) ** (mpf(t) / 1000), (1000,), 0),
    "exponential late": (
        schedules.exponential_decay(0.3, 70, 0.5, transition_begin=33, staircase=True),
        lambda t: mpf(0.3) * mpf(0.5) ** (max(t - 33, 0) // 70), (33, 103, 173), 0),
    "exponential rising": (
        schedules.exponential_decay(1e-7, 100, 1e8, end_value=10),
        lambda t: mpf(10) if t >= 100 else mpf(1e-7) * mpf(1e8) ** (mpf(t) / 100), (100,), 0),
    "natural": (
        schedules.natural_exp_decay(0.3, 70, 0.5), lambda t: mpf(0.3) * mpmath.exp(-mpf(0.5) * t / 70), (70,), 0),
    "natural staircase": (
        schedules.natural_exp_decay(0.3, 70, 0.5, staircase=True),
        lambda t: mpf(0.3) * mpmath.exp(-mpf(0.5) * (t // 70)), (70, 140), 0),
    "inverse time": (
        schedules.inverse_time_decay(0.3, 70, 0.5), lambda t: mpf(0.3) / (1 + mpf(0.5) * t / 70), (70,), 0),
    "inverse time staircase": (
        schedules.inverse_time_decay(0.3, 70, 0.5, staircase=True, power=0.75),
        lambda t: mpf(0.3) / (1 + mpf(0.5) * (t // 70)) ** mpf(0.75), (70, 140), 0),
    "linear": (schedules.linear_decay(0.3, 300), lambda t: mpf(0.3) * max(300 - t, 0) / 300, (300,), 0),
    "linear up, late": (
        schedules.linear_decay(0.1, 300, 0.7, transition_begin=20), through([20, 320], [0.1, 0.7], lambda part: part),
        (20, 320), 0.7),
    "polynomial": (
        schedules.polynomial_decay(0.3, 300, 0.1, 2.5, transition_begin=7),
        lambda t: polynomial(t, 300, 0.1, 2.5, 7), (7, 307), 0.3),
    "polynomial cycle": (
        schedules.polynomial_decay(0.3, 70, 0.1, cycle=True, transition_begin=7),
        lambda t: polynomial(t, 70, 0.1, 1, 7, True), (77, 147, 217), 0.3),
    "cosine": (schedules.cosine_decay(0.3, 300), lambda t: mpf(0.3) * cosine(mpf(min(t, 300)) / 300), (300,), 0),
    "cosine and exponent": (
        schedules.cosine_decay(0.3, 300, 0.1, exponent=0.7),
        lambda t: mpf(0.3) * ((1 - mpf(0.1)) * cosine(mpf(min(t, 300)) / 300) ** mpf(0.7) + mpf(0.1)), (300,), 0.3),
    "cosine that goes on": (
        schedules.cosine_decay(0.3, 50, 0.1, beyond="continue", exponent=1.5),
        lambda t: mpf(0.3) * ((1 - mpf(0.1)) * cosine(mpf(t) / 50) ** 1.5 + mpf(0.1)), (50, 75, 100, 150), 0.3),
    "linear cosine": (
        schedules.linear_cosine_decay(0.3, 300, beta=0), lambda t: linear_cosine(t, 300, 0.5, 0, 0), (300,), 0),
    "linear cosine, odd": (
        schedules.linear_cosine_decay(0.3, 300, 1.5, 0.2), lambda t: linear_cosine(t, 300, 1.5, 0.2, 0.001),
        (100, 300), 0.3),
    "linear cosine, whole": (
        schedules.linear_cosine_decay(0.3, 300, 2, 0.2, 0.1), lambda t: linear_cosine(t, 300, 2, 0.2, 0.1),
        (75, 300), 0.3),
    "linear cosine, neither": (
        schedules.linear_cosine_decay(0.3, 300, 0.7, 0.2, 0.1), lambda t: linear_cosine(t, 300, 0.7, 0.2, 0.1),
        (300,), 0.3),
}  # fmt: skip


def steps_of(places: Iterable[int]) -> list[int]:
    """The first steps, those around each place, and the far ones."""
    around = [place + offset for place in places for offset in (-2, -1, 0, 1, 2)]
    return sorted({0, 1, 2, 11, 37, 66, 149, *around, *FAR})


@pytest.mark.parametrize("name", CASES)
def test_against_the_formula_in_50_digits(name: str) -> None:
    """Within 8 ulp, and 8 ulp of the scale where the formula adds its end."""
    ours, formula, places, scale = CASES[name]
    with mpmath.workdps(50):
        for t in steps_of(places):
            exact = formula(t)
            allowed = 8 * math.ulp(float(exact)) + 8 * math.ulp(scale) * (scale > 0)
            assert abs(ours(t) - exact) <= allowed, (t, ours(t), float(exact))


@pytest.mark.parametrize("name", [name for name in CASES if name != "constant"])
def test_the_formula_tells_a_step_from_the_next(name: str) -> None:
    ours, formula, places, _ = CASES[name]
    assert any(abs(ours(t + 1) - formula(t)) > 1e-6 * abs(formula(t)) for t in steps_of(places))


def test_ends_are_exact() -> None:
    """Where a decay says that it has arrived, nothing is rounded; and it stays."""
    far = [0, 97, 98, *FAR]
    assert schedules.linear_decay(0.7, 97, 0.3)(far).tolist() == [0.7] + [0.3] * 6
    assert schedules.piecewise_interpolate([0, 97], [0.7, 0.3])(far).tolist() == [0.7] + [0.3] * 6
    assert schedules.polynomial_decay(0.7, 97, 0.3, power=0.9)(far)[1:].tolist() == [0.3] * 6
    assert schedules.cosine_decay(0.7, 97)(far).tolist() == [0.7] + [0.0] * 6
    assert schedules.linear_cosine_decay(0.7, 97, beta=0)(far)[1:].tolist() == [0.0] * 6
    again = schedules.cosine_decay(0.7, 97, beyond="continue")
    assert again([97, 194, 97 * 3, 194 * 10**9]).tolist() == [0.0, 0.7, 0.0, 0.7]


def test_values_may_be_parameters() -> None:
    one = schedules.parameter("one", 1.0)
    for make in (
        lambda x: schedules.step_decay(0.1 * x, 10),
        lambda x: schedules.multi_step_decay(0.1 * x, [10]),
        lambda x: schedules.natural_exp_decay(0.1 * x, 10, 0.5),
        lambda x: schedules.inverse_time_decay(0.1 * x, 10, 0.5),
        lambda x: schedules.linear_decay(0.1 * x, 10, 0.01 * x),
        lambda x: schedules.linear_cosine_decay(0.1 * x, 10),
        lambda x: schedules.noisy_linear_cosine_decay(0.1 * x, 10),
    ):
        np.testing.assert_array_equal(make(one)(range(50)), make(1.0)(range(50)))


@pytest.mark.parametrize(
    ("length", "periods", "alpha", "variance", "fall"), [(100, 0.5, 0.0, 1.0, 0.55), (4, 2.0, 0.3, 4.0, 1.5)]
)
def test_noise_has_the_mean_and_deviation_of_tensorflow(
    length: int, periods: float, alpha: float, variance: float, fall: float
) -> None:
    """Over seeds, at steps early, late and beyond: lr * cosine part * sqrt(variance / (1 + min(t, T)) ** fall)."""
    count = 3000
    steps = np.unique([0, 1, length // 3, length // 2, length - 1, length, length + 1, 3 * length])
    arguments = {"initial_variance": variance, "variance_decay": fall, "num_periods": periods, "alpha": alpha}
    seeds = np.array([
        schedules.noisy_linear_cosine_decay(0.1, length, **arguments, seed=seed)(steps) for seed in range(count)
    ])  # fmt: skip
    time = np.minimum(steps, length)
    wave = (1 + np.cos(2 * np.pi * periods * time / length)) / 2
    mean = 0.1 * ((alpha + 1 - time / length) * wave + 0.001)
    deviation = 0.1 * wave * np.sqrt(variance / (1 + time) ** fall)
    assert (np.abs(seeds.mean(axis=0) - mean) <= 5 * deviation / math.sqrt(count) + 1e-15).all()
    np.testing.assert_allclose(seeds.std(axis=0), deviation, rtol=5 / math.sqrt(2 * count), atol=1e-15)
    moving = seeds[:, deviation > 1e-9]
    assert moving.shape[1] >= 4
    others = np.corrcoef(moving.T) - np.eye(moving.shape[1])
    assert np.abs(others).max() < 5 / math.sqrt(count), "steps are independent"


def test_noise_is_the_same_in_every_run_and_another_under_another_seed() -> None:
    one, again, other = (schedules.noisy_linear_cosine_decay(0.1, 50, seed=seed)(range(50)) for seed in (3, 3, 4))
    assert one.tolist() == again.tolist()
    assert (one != other).all()
    assert (one < 0).any(), "as in TensorFlow"
    assert schedules.maximum(schedules.noisy_linear_cosine_decay(0.1, 50, seed=3), 0)(range(50)).min() == 0


GOOD: dict[Callable[..., Expr], dict[str, Any]] = {
    schedules.step_decay: {"lr": 1.0, "step_size": 10, "gamma": 0.5},
    schedules.multi_step_decay: {"lr": 1.0, "milestones": [3, 10], "gamma": 0.5},
    schedules.piecewise_interpolate: {"knots": [0, 9], "values": [1.0, 0.0], "shape": "cosine"},
    schedules.exponential_decay: {"lr": 1.0, "decay_steps": 10, "decay_rate": 0.5, "transition_begin": 4},
    schedules.natural_exp_decay: {"lr": 1.0, "decay_steps": 10, "decay_rate": 0.5},
    schedules.inverse_time_decay: {"lr": 1.0, "decay_steps": 10, "decay_rate": 0.5, "power": 2.0},
    schedules.linear_decay: {"lr": 1.0, "decay_steps": 10, "end_lr": 0.5, "transition_begin": 4},
    schedules.polynomial_decay: {"lr": 1.0, "decay_steps": 10, "transition_begin": 4},
    schedules.cosine_decay: {"lr": 1.0, "decay_steps": 10, "alpha": 0.1, "exponent": 2.0, "beyond": "hold"},
    schedules.linear_cosine_decay: {"lr": 1.0, "decay_steps": 10, "num_periods": 0.5, "alpha": 0.1, "beta": 0.1},
    schedules.noisy_linear_cosine_decay: {
        "lr": 1.0, "decay_steps": 10, "initial_variance": 1.0, "variance_decay": 0.5, "num_periods": 0.5, "alpha": 0.1,
        "beta": 0.1, "seed": 3},
}  # fmt: skip
POSITIVE = ("step_size", "decay_steps", "decay_rate", "power", "exponent", "num_periods")
CHOICES = ("shape", "beyond")
LISTS = ("milestones", "knots", "values")
NUMBERS = [
    (function, name, value)
    for function, good in GOOD.items()
    for name in good
    if name not in CHOICES + LISTS
    for value in (-1, math.nan, math.inf, -math.inf, *((0, -0.5) if name in POSITIVE else ()))
]


@pytest.mark.parametrize(("function", "name", "value"), NUMBERS)
def test_bad_numbers_are_refused(function: Callable[..., Expr], name: str, value: float) -> None:
    assert isinstance(function(**GOOD[function]), Expr)
    with pytest.raises(ValueError, match=f"^{name} must be finite and .+, got {re.escape(repr(value))}"):
        function(**GOOD[function] | {name: value})


@pytest.mark.parametrize("function", GOOD)
def test_what_is_no_number_is_refused(function: Callable[..., Expr]) -> None:
    names = [name for name in GOOD[function] if name not in CHOICES + LISTS]
    for name, value in itertools.product(names, ("0.1", True, None, 1j)):
        with pytest.raises(TypeError, match=f"^{name} must be a number, got "):
            function(**GOOD[function] | {name: value})


REFUSED: list[tuple[Callable[[], Expr], str]] = [
    *(
        (lambda places=places: schedules.multi_step_decay(1, places), "^milestones must be at least one, .+ in order, ")
        for places in ([], [3, 2], [-1], [1, math.nan], [math.nan], [math.inf])
    ),
    (lambda: schedules.multi_step_decay(1, [3, 4], [0.1]), r"gamma must be one number, or one .+ 2 .+, got \[0.1\]"),
    (lambda: schedules.multi_step_decay(1, [3, 4], [0.1, -1]), "gamma 1 must be finite and >= 0, got -1"),
    *(
        (
            lambda places=places: schedules.piecewise_interpolate(places, [1, 2]),
            "^knots must be at least two, finite, >= 0, rising and as many as the 2 values, got",
        )
        for places in ([], [1], [3, 3], [4, 3], [1, 2, 3], [-1, 2], [0, math.inf], [math.nan, 2])
    ),
    (lambda: schedules.piecewise_interpolate([1], [1]), "knots must be at least two"),
    (lambda: schedules.piecewise_interpolate([1, 2], [1, -1]), "value 1 must be finite and >= 0, got -1"),
    (lambda: schedules.piecewise_interpolate([1, 2], [1, 2], shape="cos"), "shape must be 'linear' or 'cosine', got"),
    (lambda: schedules.cosine_decay(1, 10, beyond="stop"), "beyond must be 'hold' or 'continue', got 'stop'"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_bad_lists_and_choices_are_refused(call: Callable[[], Expr], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_lists_of_what_is_no_number_are_refused() -> None:
    with pytest.raises(TypeError, match="milestone 1 must be a number, got '4'"):
        schedules.multi_step_decay(1, [3, "4"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"gamma must be a number, got '0\.1'"):
        schedules.multi_step_decay(1, [3, 4], "0.1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="knot 0 must be a number, got None"):
        schedules.piecewise_interpolate([None, 1], [1, 2])  # type: ignore[list-item]
