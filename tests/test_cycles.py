"""Cyclical schedules: scales of one's own, their ends far away, new bounds at run time, what they refuse."""

import math
from fractions import Fraction

import numpy as np
import pytest
from refusals import check_refusals

from gpuadam import SGD, schedules
from gpuadam.expressions import Expr
from gpuadam.schedules import cyclic, cyclic_momentum, parameter, shift, sinpi, step

FAR = [0, 1, 9, 10, 11, 20, 21, 2**31 - 1, 2**31, 2**31 + 9, 2**40, 2**40 + 7]


def exact(step: int, up: Fraction, down: Fraction) -> tuple[int, Fraction]:
    """Number of the cycle, 0 first, and the height of the triangle."""
    index = math.floor(step / (up + down))
    place = step - index * (up + down)
    return index, min(place / up, (up + down - place) / down)


@pytest.mark.parametrize(("up", "down"), [("10", "10"), ("10", "3"), ("7.25", "7.25"), ("0.5", "1"), ("1e9", "1e9")])
def test_triangles_are_exact_however_far(up: str, down: str) -> None:
    schedule = cyclic(0.0, 1.0, float(up), step_size_down=float(down))
    heights = [float(exact(step, Fraction(up), Fraction(down))[1]) for step in FAR]
    np.testing.assert_allclose(schedule(FAR), heights, rtol=1e-15, atol=0)


def test_own_scales_of_the_cycle_and_of_the_step() -> None:
    """The two examples of CLR's README, and one of the cycle number that tells 0-based from 1-based."""
    steps = np.arange(200)
    number, place = steps // 20 + 1, np.minimum(steps % 20, 20 - steps % 20) / 10
    by_cycle = cyclic(0.001, 0.006, 10, scale_fn=lambda x: 0.5 * (1 + sinpi(x / 2)))
    by_step = cyclic(0.001, 0.006, 10, scale_fn=lambda x: 1 / 5 ** (x * 0.0001), scale_mode="iterations")
    reciprocal = cyclic(0.001, 0.006, 10, scale_fn=lambda x: 1 / x)
    for ours, scale in (
        (by_cycle, 0.5 * (1 + np.sin(number * np.pi / 2))),
        (by_step, 5.0 ** (-steps * 1e-4)),
        (reciprocal, 1 / number),
    ):
        np.testing.assert_allclose(ours(steps), 0.001 + 0.005 * place * scale, rtol=1e-13)
    assert by_cycle([10, 30, 50, 70]).tolist() == [0.006, 0.001 + 0.005 * 0.5, 0.001, 0.001 + 0.005 * 0.5]
    both = cyclic_momentum(10, scale_fn=lambda x: 1 / x)
    np.testing.assert_allclose(both(steps), 0.9 - 0.1 * place / number, rtol=1e-15)


def test_a_scale_function_is_called_once_with_an_expression() -> None:
    calls = []
    schedule = cyclic(0.0, 1.0, 4, scale_fn=lambda x: calls.append(x) or 0.5)
    assert schedule([0, 4, 12]).tolist() == [0, 0.5, 0.5]
    assert [type(x) for x in calls] == [Expr]


def test_bad_scale_functions_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^scale_fn must be a function of an expression, got 0\.5$"):
        cyclic(0.0, 1.0, 4, scale_fn=0.5)
    with pytest.raises(TypeError, match=r"^scale_fn must be a function of an expression, got sinpi\(step\)$"):
        cyclic(0.0, 1.0, 4, scale_fn=sinpi(step))
    with pytest.raises(TypeError, match="what scale_fn returns must be a number, got '1'"):
        cyclic(0.0, 1.0, 4, scale_fn=lambda x: "1")
    with pytest.raises(TypeError):  # NumPy's functions cannot take an expression
        cyclic(0.0, 1.0, 4, scale_fn=lambda x: 0.5 * (1 + np.sin(x)))


def test_a_momentum_moves_against_the_learning_rate() -> None:
    for mode in ("triangular", "triangular2", "exp_range"):
        keys = {"step_size_down": 3, "mode": mode, "gamma": 0.97}
        lr, momentum = cyclic(0.0, 1.0, 7, **keys), cyclic_momentum(7, base_momentum=0.6, max_momentum=0.95, **keys)
        steps = np.arange(100)
        np.testing.assert_allclose(momentum(steps), 0.95 - (0.95 - 0.6) * lr(steps), rtol=1e-15)
    assert cyclic_momentum(5)([0, 5, 10]).tolist() == pytest.approx([0.9, 0.8, 0.9], rel=1e-15)


# ---- new bounds at run time


def clr(step: int, low: float, top: float, size: int) -> float:
    """As bckenstler/CLR writes it."""
    number = math.floor(1 + step / (2 * size))
    return low + (top - low) * max(0, 1 - abs(step / size - 2 * number + 1))


def tables(optimizer: SGD) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Where each table of the optimizer lies, and how large it is."""
    return {name: (rows.ctypes.data, rows.shape) for name, rows in optimizer._engine.tables._tables.items()}


def walked(optimizer: SGD, weight: np.ndarray, count: int) -> list[float]:
    """How far a gradient of -1 takes the weight in each of so many steps: the learning rates."""
    rates = []
    for _ in range(count):
        weight[...] = 0
        optimizer.step([np.array([-1.0])])
        rates.append(float(weight[0]))
    return rates


def test_a_reset_with_new_bounds_in_the_middle_of_a_run() -> None:
    """CLR's `_reset(new_base_lr, new_max_lr, new_step_size)`: written into the same tables, however often."""
    weight = np.zeros(1)
    optimizer = SGD([weight], lr=cyclic(0.001, 0.006, 10))
    before = tables(optimizer)
    assert walked(optimizer, weight, 33) == pytest.approx([clr(k, 0.001, 0.006, 10) for k in range(33)], rel=1e-14)
    done = 33
    for low, top, size in ((0.01, 0.05, 4), (0.0, 1.0, 7), (0.2, 0.3, 2)) * 5:
        optimizer.set_hyperparameters(lr=shift(cyclic(low, top, size), done))
        assert walked(optimizer, weight, 17) == pytest.approx([clr(k, low, top, size) for k in range(17)], rel=1e-13)
        done += 17
    assert tables(optimizer) == before


def test_bounds_that_are_parameters_move_alone() -> None:
    weight = np.zeros(1)
    optimizer = SGD([weight], lr=cyclic(parameter("low", 0.001), parameter("top", 0.006), 10))
    before = tables(optimizer)
    walked(optimizer, weight, 13)
    optimizer.set_parameter("low", 0.1)
    optimizer.set_parameter("top", 0.5)
    assert walked(optimizer, weight, 30) == pytest.approx([clr(k, 0.1, 0.5, 10) for k in range(13, 43)], rel=1e-14)
    assert tables(optimizer) == before


# ---- bad arguments


SHAPE = {
    "step_size": ("positive", 10), "step_size_down": ("positive", 5), "mode": ("choice", "exp_range"),
    "gamma": ("fraction", 0.9), "scale_mode": ("choice", "cycle"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (cyclic, {"base_lr": ("value", 0.1), "max_lr": ("value", 1.0), **SHAPE}),
        (cyclic_momentum, {"base_momentum": ("momentum", 0.8), "max_momentum": ("momentum", 0.9), **SHAPE}),
    ],
)
def test_bad_arguments_are_refused(function, arguments) -> None:
    check_refusals(function, arguments)


def test_the_family_is_public() -> None:
    assert {"cyclic", "cyclic_momentum"} <= set(schedules.__all__)
