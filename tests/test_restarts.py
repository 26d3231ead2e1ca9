"""Warm restarts: every one on time, however many and however far; their decays; what is refused.

That each is its home's own is shown in test_equivalents.py.
"""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
from refusals import check_refusals

from gpuadam.schedules import (
    adamwr,
    adamwr_weight_decay,
    cosine_decay_restarts,
    keras_adamw_eta,
    keras_adamw_weight_decay,
    sgdr,
    sgdr_schedule,
    sgdr_weight_decay,
)

MILLION = 10**6


def wave(part: np.ndarray) -> np.ndarray:
    """(1 + cos(pi part)) / 2."""
    return np.sin(np.pi / 2 * (1 - part)) ** 2


@pytest.mark.parametrize("length", ["49", "1000", "12.5", "49.3", "333.3333", "7.1"])
def test_a_million_restarts_of_one_length_are_on_time(length):
    """The first step of each of 10**6 cycles and the one before it; the cycles unrolled in whole numbers."""
    exact = Fraction(length)
    count = np.arange(1, MILLION + 1)
    restarts = -(-count * exact.numerator // exact.denominator)
    for steps in (restarts, restarts - 1):
        ahead = steps * exact.denominator % exact.numerator  # of the cycle, in units of 1 / denominator steps
        expected = wave(ahead / exact.numerator)
        values = sgdr(1.0, float(length))(steps)
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-7)
        assert exact.denominator > 1 or steps is not restarts or (values == 1).all()


def test_a_million_restarts_of_tensorflows_form_are_on_time():
    restarts = 49 * np.arange(1, MILLION + 1)
    assert (cosine_decay_restarts(0.1, 49, 1.0)(restarts) == 0.1).all()
    assert cosine_decay_restarts(1.0, 49, 1.0)(restarts - 1).max() == pytest.approx(wave(48 / 49), rel=1e-9)


@pytest.mark.parametrize(("first", "growth"), [(1, 2), (10, 3), (1000, 2), (7, 4), (49, 2), (3, 10)])
def test_restarts_of_whole_growth_are_exact(first, growth):
    """To the last step that a double counts: at every restart the top, a step before it the end."""
    begin, length = 0, first
    while begin + length < 2**53:
        assert sgdr(0.1, first, growth)(begin) == 0.1
        assert cosine_decay_restarts(1.0, first, growth, 0.5)(begin) == 0.5 ** round(math.log(length / first, growth))
        begin, length = begin + length, length * growth
        last = sgdr(1.0, first, growth, 0.25)(begin - 1)
        assert last == pytest.approx(0.25 + 0.75 * wave(1 - Fraction(growth, length)), rel=1e-12)


@pytest.mark.parametrize(("first", "growth"), [("7", "1.5"), ("1000", "1.5"), ("10", "1.25"), ("12.5", "3")])
def test_restarts_of_broken_growth_are_on_time(first, growth):
    """The boundaries in fractions; the first whole step at or after each, and the one before it."""
    begin, length, count = Fraction(0), Fraction(first), 0
    schedule = sgdr(1.0, float(first), float(growth))
    while begin + length < 2**40:
        end = begin + length
        for step in (math.ceil(begin), math.ceil(end) - 1):
            assert schedule(step) == pytest.approx(wave(float((step - begin) / length)), abs=1e-8), (count, step)
        begin, length, count = end, length * Fraction(growth), count + 1
    assert count > 20


def test_where_a_logarithm_misses_restarts():
    """What the head of `restarts` says of others."""
    restarts = [10 * (3**i - 1) // 2 for i in range(26)]
    late = [t for i, t in enumerate(restarts) if int(math.log(t / 10 * 2 + 1, 3)) != i]
    assert late[:3] == [1210, 295240, 7971610]
    assert len(late) == 7
    assert sgdr(0.1, 10, 3)(restarts).tolist() == [0.1] * 26
    assert max(sgdr(0.1, 10, 3)([t - 1 for t in late])) < 1e-6


def test_steps_far_away():
    assert sgdr(0.1, 2**10, 1, 0.02)([2**31, 2**40, 2**40 + 512]).tolist() == pytest.approx([0.1, 0.1, 0.06])
    assert sgdr(0.1, 1, 2)([2**31 - 1, 2**40 - 1]).tolist() == [0.1, 0.1]
    assert keras_adamw_eta(2**10)([2**31, 2**40, 2**40 + 1023]).tolist() == [1, 1, 0]
    assert sgdr_weight_decay(0.5, 4, 1)([2**31, 2**40 + 2]).tolist() == pytest.approx([0.25, 0.125])


def test_ends_are_exact_and_in_order():
    schedule = sgdr(0.7, 10, 2, 0.3)
    assert schedule([0, 10, 30, 70]).tolist() == [0.7] * 4
    values = schedule(range(70))
    assert (np.diff(values)[[9, 29]] > 0.3).all()
    assert (np.delete(np.diff(values), [9, 29]) < 0).all()
    assert values.min() > 0.3


def test_the_authors_first_cycle_is_a_step_ahead():
    plain, ahead = sgdr(0.1, 20, 2), sgdr(0.1, 20, 2, first=1)
    np.testing.assert_allclose(ahead(range(19)), plain(range(1, 20)), rtol=1e-13)
    assert abs(ahead(19)) < 1e-30
    np.testing.assert_array_equal(ahead(range(20, 200)), plain(range(20, 200)))


def test_normalised_decay_takes_as_much_in_every_cycle_of_equal_square_root():
    """The sum over a cycle of T steps is weight_decay * (T + 1) / 2 / sqrt(T): the cosine's mean is a half."""
    decay = sgdr_weight_decay(0.3, 16, 4)(range(16 + 64 + 256))
    for begin, length in ((0, 16), (16, 64), (80, 256)):
        total = decay[begin : begin + length].sum()
        assert total == pytest.approx(0.3 * (length + 1) / 2 / math.sqrt(length), rel=1e-12)


def test_adamwr_lists_its_restarts():
    """Periods of 10 epochs x 1.1, each rounded up: 10,000 epochs; beyond them the last period goes to its end."""
    epochs = 10_000
    schedule = adamwr(1.0, 1, 4, 10, 1.1, epochs=epochs, min_lr=0.125, policy="triangular")
    begin, period, starts = 0, 10, []
    while begin < epochs:
        starts.append((begin, period))
        begin, period = begin + period, math.ceil(period * 1.1)
    tops = [4 * begin + 2 * period for begin, period in starts if begin + period < epochs]
    assert len(tops) > 40
    assert (schedule(tops) == 1).all()
    assert (schedule([4 * begin for begin, _ in starts]) == 0.125).all()
    assert adamwr(0.1, 8, 32, 1, 1e308, epochs=9)(5) == adamwr(0.1, 8, 32, 1e308, epochs=9)(0) == 0.1
    assert schedule([8 * epochs, 2**40]).tolist() == [0.125] * 2
    shrinking = adamwr(1.0, 1, 4, 8, 0.5, epochs=20, min_lr=0.0, policy="triangular")
    assert np.flatnonzero(shrinking(range(80)) == 1)[:3].tolist() == [16, 40, 52]


def test_every_cycle_of_optax_has_lengths_and_ends_of_its_own():
    one = {"init_value": 0.2, "peak_value": 1.0, "warmup_steps": 0, "decay_steps": 10, "end_value": 0.1}
    two = {"init_value": 0.0, "peak_value": 0.5, "warmup_steps": 5, "decay_steps": 20}
    schedule = sgdr_schedule(iter([one, two, one]))
    assert schedule([0, 10, 15, 30, 40, 1000]).tolist() == [1, 0, 0.5, 1, 0.1, 0.1]
    assert sgdr_schedule([two])([0, 5, 20]).tolist() == [0, 0.5, 0]


# ---- bad arguments


LENGTH, GROWTH, RATE = ("positive", 10), ("growth", 2.0), ("value", 0.1)
EPOCHS = {"batch_size": ("positive", 8), "epoch_size": ("positive", 32), "restart_period": ("positive", 2),
          "t_mult": ("positive", 1.5), "epochs": ("whole", 9), "policy": ("choice", "exp_range"),
          "gamma": ("fraction", 0.9), "triangular_step": ("fraction", 0.3)}  # fmt: skip
ARGUMENTS = {
    sgdr: {"eta_max": RATE, "t_0": LENGTH, "t_mult": GROWTH, "eta_min": RATE},
    sgdr_weight_decay: {"weight_decay": RATE, "t_0": LENGTH, "t_mult": GROWTH},
    adamwr: {"lr": RATE, "min_lr": RATE, **EPOCHS},
    adamwr_weight_decay: {"weight_decay": RATE, **EPOCHS},
    keras_adamw_eta: {"total_iterations": ("whole", 9), "eta_min": RATE, "eta_max": RATE},
    keras_adamw_weight_decay: {"weight_decay": RATE, "total_iterations": ("whole", 9),
                               "total_iterations_wd": LENGTH, "eta_min": RATE, "eta_max": RATE},
}  # fmt: skip
REFUSED = {
    "first must be 0 or 1, got 2": lambda: sgdr(0.1, 10, first=2),
    "total_iterations must be a whole number > 1, got 1": lambda: keras_adamw_eta(1),
    "total_iterations must be a whole number > 1, got 1.5": lambda: keras_adamw_weight_decay(0.1, 1.5),
    "total_iterations must be finite and > 0, got 0": lambda: keras_adamw_weight_decay(0.1, 0),
    "epochs must be a whole number up to 10,000, got 10001": lambda: adamwr(0.1, 8, 32, epochs=10_001),
    "batch_size must be finite and >= 1, got 5e-324": lambda: adamwr(0.1, 5e-324, 32, epochs=9),
    "epoch_size must be finite and >= 1, got 0.5": lambda: adamwr(0.1, 8, 0.5, epochs=9),
    "triangular_step must be > 0 and < 1, got 0": lambda: adamwr(0.1, 8, 32, epochs=9, triangular_step=0),
    "triangular_step must be > 0 and < 1, got 1": lambda: adamwr(0.1, 8, 32, epochs=9, triangular_step=1),
    "cosine_kwargs must be at least one cycle, got []": lambda: sgdr_schedule([]),
    "decay_steps must be > warmup_steps=9, got 5": lambda: sgdr_schedule(
        [{"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 9, "decay_steps": 5}]),
}  # fmt: skip


@pytest.mark.parametrize("function", ARGUMENTS)
def test_bad_arguments_are_refused(function):
    check_refusals(function, ARGUMENTS[function])


@pytest.mark.parametrize("message", REFUSED)
def test_other_bad_arguments_are_refused(message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        REFUSED[message]()


def test_too_many_cycles_are_refused():
    with pytest.raises(ValueError, match=r"multiplier 1.001 makes more than 4096 cycles"):
        sgdr(0.1, 10, 1.001)
    with pytest.raises(TypeError, match=r"cosine_kwargs\[1\] must be a dict of arguments, got 5"):
        sgdr_schedule([{"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 1, "decay_steps": 5}, 5])
    with pytest.raises(TypeError, match="decay_steps"):
        sgdr_schedule([{"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 9}])
