"""Schedules made of others: what they are at each step by plain Python, and what they refuse."""

import math
import re
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpuadam import schedules
from gpuadam.expressions import Expr
from gpuadam.schedule_data import from_data, to_data
from gpuadam.schedules import step

STEPS = [*range(200), 2**31, 2**40, 2**40 + 1]
DECAY = schedules.polynomial_decay(0.7, 30, 0.1, power=2)


def decay(t: float) -> float:
    return 0.6 * (1 - min(t, 30) / 30) ** 2 + 0.1


def halved_at_odd_epochs(epoch: int, lr: float) -> float:
    return lr / 2 if epoch % 2 else lr


# name: ours, the same in plain Python
CASES: dict[str, tuple[Expr, Callable[[int], float]]] = {
    "sum": (DECAY + 0.5, lambda t: decay(t) + 0.5),
    "difference of two": (
        DECAY - schedules.linear_decay(0.1, 50), lambda t: decay(t) - 0.1 * max(1 - t / 50, 0)),
    "product, as of ChainedScheduler": (
        math.prod([0.5, DECAY, schedules.step_decay(1, 20, 0.5)], start=schedules.constant(1)),
        lambda t: 0.5 * decay(t) * 0.5 ** (t // 20)),
    "minimum": (schedules.minimum(DECAY, 0.3), lambda t: min(decay(t), 0.3)),
    "maximum": (
        schedules.maximum(DECAY, schedules.linear_decay(0.0, 50, 0.4)), lambda t: max(decay(t), 0.4 * min(t / 50, 1))),
    "clip": (schedules.clip(DECAY, 0.2, 0.5), lambda t: min(max(decay(t), 0.2), 0.5)),
    "shift": (schedules.shift(DECAY, 20), lambda t: 0.6 * (1 - min(t - 20, 30) / 30) ** 2 + 0.1),
    "stretch": (schedules.stretch(DECAY, 2.5), lambda t: decay(t / 2.5)),
    "repeat": (schedules.repeat(DECAY, 25), lambda t: decay(t % 25)),
    "repeat thrice": (schedules.repeat(DECAY, 25, times=3), lambda t: decay(t % 25 if t < 75 else t - 50)),
    "repeat once": (schedules.repeat(DECAY, 25, times=1), decay),
    "repeat in repeat": (
        schedules.repeat(schedules.repeat(DECAY, 7, times=2), 21), lambda t: decay(t % 21 % 7 if t % 21 < 7 else
                                                                                   t % 21 - 7)),
    "join of repeat": (
        schedules.join([0.5, schedules.repeat(DECAY, 10)], [33]), lambda t: 0.5 if t < 33 else decay((t - 33) % 10)),
    "per epoch": (schedules.per_epoch(DECAY, 7), lambda t: decay(t // 7)),
    "per fractional epoch": (schedules.per_epoch(DECAY, 7, staircase=False), lambda t: decay(t / 7)),
    "sampled": (schedules.sampled(decay, 40), decay),
    "sampled, per epoch": (schedules.per_epoch(schedules.sampled(decay, 40), 7), lambda t: decay(t // 7)),
    "sampled epochs": (
        schedules.sampled_epochs(halved_at_odd_epochs, 9, 10, lr=0.8),
        lambda t: 0.8 / 2 ** ((min(t // 10, 8) + 1) // 2)),
    "a formula of one's own": (
        0.1 / schedules.sqrt(schedules.maximum(step, 10)) * schedules.where(step < 50, 1, 0.5),
        lambda t: 0.1 / math.sqrt(max(t, 10)) * (1 if t < 50 else 0.5)),
    "a formula of one's own, shifted and repeated": (
        schedules.repeat(schedules.shift(0.1 * (step + 5), -2), 9), lambda t: 0.1 * (t % 9 + 2 + 5)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_against_plain_python(name: str) -> None:
    ours, plain = CASES[name]
    expected = np.array([plain(t) for t in STEPS])
    np.testing.assert_allclose(ours(STEPS), expected, rtol=1e-13)
    assert np.abs(ours([t + 1 for t in STEPS]) - expected).max() > 1e-3, "one step late is something else"


@pytest.mark.parametrize("name", CASES)
def test_a_composition_is_data_like_any_schedule(name: str) -> None:
    ours, _ = CASES[name]
    assert from_data(to_data(ours), {})(STEPS).tolist() == ours(STEPS).tolist()


def test_what_a_schedule_shares_stays_shared_where_its_time_is_moved() -> None:
    shared = schedules.exp(-step / 10)
    for move in (
        lambda s: schedules.shift(s, 3), lambda s: schedules.repeat(s, 5), lambda s: schedules.per_epoch(s, 5),
        lambda s: schedules.stretch(s, 5),
    ):  # fmt: skip
        code = [name for name, _ in to_data(move(shared * shared + shared))["code"]]
        assert code.count("EXP") == 1


def test_numbers_are_schedules_too() -> None:
    for made in (
        schedules.repeat(0.3, 5), schedules.stretch(0.3, 5), schedules.per_epoch(0.3, 5), schedules.shift(0.3, 5),
        schedules.clip(0.1, 0.3, 0.5), schedules.join([0.3], []),
    ):  # fmt: skip
        assert made([0, 7, 2**40]).tolist() == [0.3] * 3


def test_bounds_may_be_schedules() -> None:
    low = schedules.parameter("low", 0.2)
    assert schedules.clip(step / 10, low, 0.01 * step + 0.3)([0, 3, 9]).tolist() == pytest.approx([0.2, 0.3, 0.39])


def test_a_function_of_the_epoch_is_called_once_for_each_in_order_with_the_value_so_far() -> None:
    calls: list[tuple[int, float]] = []

    def function(epoch: int, lr: float) -> float:
        calls.append((epoch, lr))
        return lr * 0.1

    schedule = schedules.sampled_epochs(function, 3, 10, lr=1.0)
    assert calls == [(0, 1.0), (1, 1.0 * 0.1), (2, 1.0 * 0.1 * 0.1)]
    assert schedule([0, 9, 10, 29, 30, 10**9]).tolist() == [0.1, 0.1, 0.1 * 0.1, *[0.1 * 0.1 * 0.1] * 3]


@pytest.mark.parametrize(("kind", "bound"), [("uniform", 0.67), ("uniform", 1), ("normal", 0.67), ("normal", 1.0)])
def test_noise_has_the_distribution_of_timm(kind: str, bound: float) -> None:
    """Uniform, or normal under the condition that it lies within the bound; by Kolmogorov and Smirnov."""
    count, cdf = 100_000, statistics.NormalDist().cdf
    found = np.sort(schedules.noisy(2.0, bound, noise_type=kind, seed=5)(np.arange(count)) / 2 - 1)
    assert np.abs(found).max() <= bound
    inside = cdf(bound) - cdf(-bound)
    places = {
        "uniform": (found / bound + 1) / 2,
        "normal": np.array([(cdf(x) - cdf(-bound)) / inside for x in found]),
    }
    far = {name: np.abs(place - np.arange(count) / count).max() * math.sqrt(count) for name, place in places.items()}
    assert far.pop(kind) < 2.5
    assert far.popitem()[1] > 4, "the kinds are told apart"


def test_noise_moves_with_the_schedule_and_once_an_epoch() -> None:
    noisy = schedules.noisy(DECAY)
    assert (schedules.noisy(DECAY, seed=1)(STEPS) != noisy(STEPS)).all()
    slow = schedules.per_epoch(noisy, 10)
    np.testing.assert_array_equal(slow(range(30)), np.repeat(noisy(range(3)), 10))
    begun = schedules.where(step < 10, DECAY, noisy)
    assert begun(9) == DECAY(9)
    assert begun(10) == noisy(10) != DECAY(10)


MOVES: list[tuple[Callable[[Any], Expr], str]] = [
    (lambda s: schedules.shift(s, 2), "not at step 2"),
    (lambda s: schedules.join([1, s], [2]), "not at step 2"),
    (lambda s: schedules.repeat(s, 10), "not again every 10 steps"),
    (lambda s: schedules.stretch(s, 2), "and cannot be slowed down 2 times"),
    (lambda s: schedules.per_epoch(s, 7), "and counts updates, not epochs"),
]


@pytest.mark.parametrize(("move", "message"), MOVES)
def test_an_accumulator_is_refused_where_time_is_moved(move: Callable[[Any], Expr], message: str) -> None:
    memory = schedules.accumulator("memory", 1.0, lambda value: 0.5 * value)
    with pytest.raises(ValueError, match=f"accumulator 'memory' starts at the first update, {message}"):
        move(0.1 * memory + step)
    assert isinstance(move(step), Expr)


def test_an_accumulator_may_stand_where_time_is_not_moved() -> None:
    memory = schedules.accumulator("memory", 1.0, lambda value: 0.5 * value)
    assert schedules.clip(memory + step, 0.2, 3)(range(4)).tolist() == [1.0, 1.5, 2.25, 3.0]
    assert schedules.join([memory, 1], [2])(range(4)).tolist() == [1.0, 0.5, 1.0, 1.0]


REFUSED: list[tuple[Callable[[], Any], str]] = [
    *(
        (lambda make=make, bad=bad: make(bad), f"^{name} must be finite and > 0, got {re.escape(repr(bad))}")
        for make, name in (
            (lambda n: schedules.repeat(DECAY, n), "steps"),
            (lambda n: schedules.repeat(DECAY, 5, times=n), "times"),
            (lambda n: schedules.stretch(DECAY, n), "factor"),
            (lambda n: schedules.per_epoch(DECAY, n), "steps_per_epoch"),
            (lambda n: schedules.sampled(decay, n), "steps"),
            (lambda n: schedules.sampled_epochs(halved_at_odd_epochs, n, 5, lr=1), "epochs"),
            (lambda n: schedules.sampled_epochs(halved_at_odd_epochs, 5, n, lr=1), "steps_per_epoch"),
            (lambda n: schedules.noisy(DECAY, n), "noise_pct"),
        )
        for bad in (0, -1, math.nan, math.inf)
    ),
    (lambda: schedules.repeat(DECAY, 5, times=1.5), "times must be a whole number > 0, got 1.5"),  # type: ignore[arg-type]
    (lambda: schedules.sampled(decay, 2.5), "steps must be a whole number up to 10,000,000, got 2.5"),  # type: ignore[arg-type]
    (lambda: schedules.sampled_epochs(halved_at_odd_epochs, 10**8, 5, lr=1), "epochs must be a whole number up to"),
    (lambda: schedules.sampled_epochs(halved_at_odd_epochs, 5, 5, lr=-1), "lr must be finite and >= 0, got -1"),
    (lambda: schedules.sampled_epochs(lambda k, lr: 1 - k, 5, 5, lr=1), r"function\(2, 0.0\) must be .+, got -1.0"),
    (lambda: schedules.clip(DECAY, 0.5, 0.2), "high must be >= low=0.5, got 0.2"),
    (lambda: schedules.clip(DECAY, -0.5, 0.2), "low must be finite and >= 0, got -0.5"),
    (lambda: schedules.clip(DECAY, 0.5, math.nan), "high must be finite and >= 0, got nan"),
    (lambda: schedules.noisy(DECAY, 1.5), r"noise_pct must be in \(0, 1\], got 1.5"),
    (lambda: schedules.noisy(DECAY, noise_type="gauss"), "noise_type must be 'normal' or 'uniform', got 'gauss'"),
    (lambda: schedules.noisy(DECAY, seed=-1), "seed must be finite and >= 0, got -1"),
    (lambda: schedules.shift(DECAY, math.nan), "begin must be finite, got nan"),
    *(
        (lambda make=make: make(math.nan), f"^{name} must be finite, got nan$")
        for make, name in (
            (lambda x: schedules.join([DECAY, x], [3]), "schedule 1"),
            (lambda x: schedules.clip(x, 0, 1), "schedule"),
            (lambda x: schedules.noisy(x), "schedule"),
            (lambda x: schedules.per_epoch(x, 5), "schedule"),
            (lambda x: schedules.repeat(x, 5), "schedule"),
            (lambda x: schedules.shift(x, 5), "schedule"),
            (lambda x: schedules.stretch(x, 5), "schedule"),
        )
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_bad_arguments_are_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("bad", ["1", None, True, 1j])
def test_what_is_no_number_is_refused(bad: Any) -> None:
    for call, name in (
        (lambda: schedules.repeat(bad, 5), "schedule"), (lambda: schedules.repeat(DECAY, bad), "steps"),
        (lambda: schedules.stretch(bad, 5), "schedule"), (lambda: schedules.stretch(DECAY, bad), "factor"),
        (lambda: schedules.shift(bad, 5), "schedule"), (lambda: schedules.shift(DECAY, bad), "begin"),
        (lambda: schedules.clip(bad, 0, 1), "schedule"), (lambda: schedules.clip(DECAY, bad, 1), "low"),
        (lambda: schedules.clip(DECAY, 0, bad), "high"), (lambda: schedules.per_epoch(bad, 5), "schedule"),
        (lambda: schedules.per_epoch(DECAY, bad), "steps_per_epoch"), (lambda: schedules.noisy(bad), "schedule"),
        (lambda: schedules.noisy(DECAY, bad), "noise_pct"), (lambda: schedules.noisy(DECAY, seed=bad), "seed"),
        (lambda: schedules.sampled_epochs(halved_at_odd_epochs, 5, 5, lr=bad), "lr"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=f"^{name} must be a number, got "):
            call()


@pytest.mark.parametrize("bad", ["0.1", None, True, 1j, [0.1], np.ones(2)], ids=repr)
def test_functions_that_give_no_number_are_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"^function\(0\) must be a number, got "):
        schedules.sampled(lambda k: bad, 3)
    with pytest.raises(TypeError, match=r"^function\(0, 1\.0\) must be a number, got "):
        schedules.sampled_epochs(lambda epoch, lr: bad, 3, 10, lr=1)


@pytest.mark.parametrize("bad", [3, None, np.array(3.0), schedules.step], ids=repr)
def test_what_is_no_list_is_refused(bad: Any) -> None:
    for call, name in (
        (lambda: schedules.join(bad, [3]), "schedules"),
        (lambda: schedules.join([1, 2], bad), "boundaries"),
        (lambda: schedules.piecewise_constant(bad, [1, 2]), "boundaries"),
        (lambda: schedules.piecewise_constant([3], bad), "values"),
        (lambda: schedules.piecewise_interpolate(bad, [1, 2]), "knots"),
        (lambda: schedules.piecewise_interpolate([3, 4], bad), "values"),
        (lambda: schedules.multi_step_decay(1, bad), "milestones"),
        (lambda: schedules.fastai_one_cycle_momentum(100, moms=bad), "moms"),
        (lambda: schedules.nachiket273_one_cycle_momentum(100, momentum_vals=bad), "momentum_vals"),
        (lambda: schedules.sgdr_schedule(bad), "cosine_kwargs"),
    ):
        with pytest.raises(TypeError, match=f"^{name} must be a list, got "):
            call()


@pytest.mark.parametrize("bad", ["False", None, 1, schedules.step], ids=repr)
def test_what_is_neither_true_nor_false_is_refused(bad: Any) -> None:
    for call, name in (
        (lambda flag: schedules.exponential_decay(1, 5, 0.5, staircase=flag), "staircase"),
        (lambda flag: schedules.natural_exp_decay(1, 5, 0.5, staircase=flag), "staircase"),
        (lambda flag: schedules.inverse_time_decay(1, 5, 0.5, staircase=flag), "staircase"),
        (lambda flag: schedules.warmup_exponential_decay(0, 1, 2, 5, 0.5, staircase=flag), "staircase"),
        (lambda flag: schedules.per_epoch(DECAY, 5, staircase=flag), "staircase"),
        (lambda flag: schedules.polynomial_decay(1, 5, cycle=flag), "cycle"),
        (lambda flag: schedules.one_cycle(1, 50, three_phase=flag), "three_phase"),
        (lambda flag: schedules.one_cycle_momentum(50, three_phase=flag), "three_phase"),
        (lambda flag: schedules.nachiket273_one_cycle(1, 50, use_cosine=flag), "use_cosine"),
        (lambda flag: schedules.nachiket273_one_cycle_momentum(50, use_cosine=flag), "use_cosine"),
        (lambda flag: schedules.keras_adamw_eta(50, autorestart=flag), "autorestart"),
    ):
        with pytest.raises(TypeError, match=f"^{name} must be True or False, got "):
            call(bad)
        assert (call(np.True_)(range(60)) == call(True)(range(60))).all()


def test_callables_are_sent_to_sampled() -> None:
    with pytest.raises(TypeError, match=r"^schedule is a plain callable.+schedules\.sampled\(callable, steps\)"):
        schedules.per_epoch(decay, 5)  # type: ignore[arg-type]
