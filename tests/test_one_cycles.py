"""One cycle, whoever wrote it: exact at its places, held beyond, the momentum against it, what is refused.

That each is its home's own is shown in test_equivalents.py.
"""

import itertools
import math

import numpy as np
import pytest
from refusals import check_refusals

from gpuadam.schedules import (
    cosine_onecycle,
    fastai07_one_cycle,
    fastai07_one_cycle_momentum,
    fastai_one_cycle,
    fastai_one_cycle_momentum,
    flat_cos,
    linear_onecycle,
    nachiket273_one_cycle,
    nachiket273_one_cycle_momentum,
    one_cycle,
    one_cycle_momentum,
    smith_one_cycle,
    smith_one_cycle_momentum,
    titu1994_one_cycle,
    titu1994_one_cycle_momentum,
)

LOW = 0.7 / 10
# name: schedule, the values at some steps (places first, then one before and one after a corner)
LINES = {
    "Smith": (smith_one_cycle(0.7, 100, 90), {0: LOW, 45: 0.7, 90: LOW, 100: LOW / 100, 9: LOW + 9 / 45 * (0.7 - LOW)}),
    "Smith, all his places": (
        smith_one_cycle(0.7, 100, 60, up_steps=20, div_factor=7, final_div_factor=1000),
        {0: 0.7 / 7, 20: 0.7, 60: 0.7 / 7, 100: 0.7 / 7 / 1000, 40: 0.4}),
    "Smith without a tail": (smith_one_cycle(0.7, 100, 100), {0: LOW, 50: 0.7, 100: LOW}),
    "Smith, a fall only": (smith_one_cycle(0.7, 10, 5, up_steps=5), {0: LOW, 5: 0.7, 10: LOW / 100}),
    "optax": (linear_onecycle(100, 0.7), {0: 0.028, 30: 0.7, 85: 0.028, 100: 0.028 / 1e4, 15: 0.364}),
    "optax, no way up": (linear_onecycle(100, 0.7, pct_start=0), {0: 0.7, 85: 0.028, 100: 0.028 / 1e4}),
    "optax, cosine": (cosine_onecycle(100, 0.7), {0: 0.028, 30: 0.7, 100: 0.028 / 1e4, 15: 0.364}),
    "optax, cosine, no way up": (cosine_onecycle(100, 0.7, pct_start=0), {0: 0.7, 50: 0.3500014, 100: 0.028 / 1e4}),
    "optax, cosine, no way down": (cosine_onecycle(100, 0.7, pct_start=1), {0: 0.028, 100: 0.7}),
    "fastai": (fastai_one_cycle(0.7, 100), {0: 0.028, 25: 0.7, 100: 0.7 / 1e5}),
    "fastai, no way up": (fastai_one_cycle(0.7, 100, pct_start=0), {0: 0.7, 100: 0.7 / 1e5}),
    "fastai, no way down": (fastai_one_cycle(0.7, 100, pct_start=1), {0: 0.028, 100: 0.7}),
    "flat": (flat_cos(0.7, 100), {**dict.fromkeys(range(76), 0.7), 100: 0.7 / 1e5}),
    "flat, never": (flat_cos(0.7, 100, pct_start=0), {0: 0.7, 50: 0.35 * (1 + 1e-5), 100: 0.7 / 1e5}),
    "flat, always": (flat_cos(0.7, 100, pct_start=1), dict.fromkeys(range(101), 0.7)),
    "fastai 0.7": (fastai07_one_cycle(0.7, 100), {0: LOW, 45: 0.7, 90: LOW, 100: LOW / 100}),
    "titu1994": (titu1994_one_cycle(0.7, 100), {0: LOW, 45: 0.7, 90: LOW, 100: LOW / 100}),
    "titu1994, a peak of 4": (
        titu1994_one_cycle(0.7, 100, end_percentage=0.2), {0: 0.14, 40: 2.8, 80: 0.14, 100: 0.0014}),
    "nachiket273": (nachiket273_one_cycle(0.7, 100), {0: LOW, 45: 0.7, 90: LOW, 100: LOW / 10}),
    "nachiket273, cosine": (nachiket273_one_cycle(0.7, 100, use_cosine=True), {0: LOW, 25: 0.7, 100: LOW}),
}  # fmt: skip
TWINS = {
    "PyTorch": (one_cycle(0.7, 100), one_cycle_momentum(100)),
    "Smith": (smith_one_cycle(0.7, 100, 90), smith_one_cycle_momentum(100, 90)),
    "Smith, steep": (smith_one_cycle(0.7, 100, 60, up_steps=20), smith_one_cycle_momentum(100, 60, up_steps=20)),
    "fastai": (fastai_one_cycle(0.7, 100), fastai_one_cycle_momentum(100)),
    "titu1994": (titu1994_one_cycle(0.7, 100), titu1994_one_cycle_momentum(100)),
    "nachiket273": (nachiket273_one_cycle(0.7, 100), nachiket273_one_cycle_momentum(100)),
    "nachiket273, cosine": (
        nachiket273_one_cycle(0.7, 100, use_cosine=True), nachiket273_one_cycle_momentum(100, use_cosine=True)),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_places_and_levels(name):
    schedule, expected = LINES[name]
    np.testing.assert_allclose(schedule(list(expected)), list(expected.values()), rtol=1e-15)
    assert schedule([100, 1000, 2**31, 2**40]).tolist() == [schedule(max(expected))] * 4
    values = schedule(range(101))
    assert min(expected.values()) <= values.min() * (1 + 1e-15)
    assert values.max() == pytest.approx(max(expected.values()), rel=1e-15)


@pytest.mark.parametrize("name", LINES)
def test_a_corner_is_where_it_is_said_to_be(name):
    """The same schedule a step late has other values at the places."""
    schedule, expected = LINES[name]
    inner = [step for step in expected if 0 < step < 100]
    if inner and name != "flat, always":
        late = schedule([step + 1 for step in inner])
        assert not np.allclose(late, [expected[step] for step in inner], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", TWINS)
def test_the_momentum_is_lowest_where_the_rate_is_highest(name):
    lr, momentum = (twin(np.arange(100)) for twin in TWINS[name])
    assert lr.argmax() == momentum.argmin()
    assert momentum.min() == pytest.approx(0.85, rel=1e-15)
    assert momentum[0] == 0.95
    rising = np.diff(lr[: lr.argmax() + 1])
    assert (rising > 0).all()
    assert (np.diff(momentum[: lr.argmax() + 1]) < 0).all()
    assert (np.diff(momentum[lr.argmax() :]) > -1e-15).all()


def test_in_the_tail_the_momentum_does_not_move_by_a_bit():
    for momentum, tail in ((smith_one_cycle_momentum(100, 90, max_momentum=0.93), range(90, 200)),
                           (titu1994_one_cycle_momentum(97, maximum_momentum=0.93), range(86, 200)),
                           (nachiket273_one_cycle_momentum(97, momentum_vals=(0.93, 0.6)), range(86, 200)),
                           (one_cycle_momentum(90, max_momentum=0.93, pct_start=0.25, three_phase=True),
                            range(43, 200))):  # fmt: skip
        assert set(momentum(tail).tolist()) == {0.93}


def test_the_momentum_of_fastai_07_is_a_step_ahead():
    lr, momentum = fastai07_one_cycle(0.7, 100), fastai07_one_cycle_momentum(100, mom_max=0.9, mom_min=0.6)
    assert lr(range(100)).argmax() == 45
    assert momentum(range(100)).argmin() == 44
    assert momentum(0) == pytest.approx(0.9 - 0.3 / 45, rel=1e-15)
    assert momentum(range(89, 200)).tolist() == [0.9] * 111


def test_cosine_phases_are_half_waves():
    schedule = smith_one_cycle(1.0, 40, 30, up_steps=10, div_factor=4, final_div_factor=5, anneal="cosine")
    for begin, end, first, last in ((0, 10, 0.25, 1.0), (10, 30, 1.0, 0.25), (30, 40, 0.25, 0.05)):
        for step in range(begin, end + 1):
            turn = math.cos(math.pi * (step - begin) / (end - begin))
            assert schedule(step) == pytest.approx(last + (first - last) * (1 + turn) / 2, rel=1e-14)


BETWEEN = {
    (smith_one_cycle, (0.1, 100, 101)): r"cycle_steps must be <= total_steps=100, got 101",
    (smith_one_cycle_momentum, (100, 101)): r"cycle_steps must be <= total_steps=100, got 101",
    (one_cycle, (0.1, 0.5)): r"total_steps must be finite and >= 1, got 0.5",
    (one_cycle_momentum, (0.5,)): r"total_steps must be finite and >= 1, got 0.5",
    (linear_onecycle, (100, 0.1, 0.5, 0.5)): r"pct_final must be > pct_start=0.5, got 0.5",
    (fastai07_one_cycle, (0.1, 1)): r"total_steps must be enough for a step up beside a tail of 10%, got 1",
    (titu1994_one_cycle, (0.1, 2)): r"total_steps must be enough for a step up beside a tail of 10%, got 2",
    (nachiket273_one_cycle, (0.1, 2)): r"total_steps must be enough for a step up beside a tail of 10%, got 2",
}


@pytest.mark.parametrize(("call", "message"), BETWEEN.items(), ids=lambda part: getattr(part[0], "__name__", None))
def test_lengths_that_do_not_fit_are_refused(call, message):
    function, arguments = call
    with pytest.raises(ValueError, match=f"^{message}$"):
        function(*arguments)


def test_other_combinations_are_refused():
    with pytest.raises(ValueError, match=r"^up_steps must be <= cycle_steps=90, got 91$"):
        smith_one_cycle(0.1, 100, 90, up_steps=91)
    with pytest.raises(ValueError, match=r"^moms must be three momenta, got \(0.95, 0.85\)$"):
        fastai_one_cycle_momentum(100, moms=(0.95, 0.85))
    with pytest.raises(ValueError, match=r"^momentum 1 of moms must be finite and in \[0, 1\], got 1.5$"):
        fastai_one_cycle_momentum(100, moms=(0.95, 1.5, 0.95))
    with pytest.raises(ValueError, match=r"^momentum_vals must be two momenta, the higher one first, got \(1,\)$"):
        nachiket273_one_cycle_momentum(100, momentum_vals=(1,))
    with pytest.raises(ValueError, match=r"^pct must be a percentage from 0 to 100, got 101$"):
        fastai07_one_cycle(0.1, 100, pct=101)
    with pytest.raises(ValueError, match=r"^total_steps must be enough .+ 100%, got 100$"):
        titu1994_one_cycle(0.1, 100, end_percentage=1)


RATE, STEPS, DIVISOR, PART = ("value", 0.1), ("positive", 100), ("positive", 10), ("fraction", 0.3)
HIGH, LOWER, SHAPE = ("momentum", 0.9), ("momentum", 0.8), ("choice", "cosine")
ARGUMENTS = {
    smith_one_cycle: {"max_lr": RATE, "total_steps": STEPS, "cycle_steps": ("positive", 90),
                      "up_steps": ("positive", 20), "div_factor": DIVISOR, "final_div_factor": DIVISOR,
                      "anneal": SHAPE},
    smith_one_cycle_momentum: {"total_steps": STEPS, "cycle_steps": ("positive", 90), "up_steps": ("positive", 20),
                               "base_momentum": LOWER, "max_momentum": HIGH, "anneal": SHAPE},
    linear_onecycle: {"transition_steps": STEPS, "peak_value": RATE, "pct_start": PART, "pct_final": ("fraction", 0.8),
                      "div_factor": DIVISOR, "final_div_factor": DIVISOR},
    cosine_onecycle: {"transition_steps": STEPS, "peak_value": RATE, "pct_start": PART, "div_factor": DIVISOR,
                      "final_div_factor": DIVISOR},
    fastai_one_cycle: {"lr_max": RATE, "total_steps": STEPS, "div": DIVISOR, "div_final": DIVISOR, "pct_start": PART},
    fastai_one_cycle_momentum: {"total_steps": STEPS, "pct_start": PART},
    flat_cos: {"lr": RATE, "total_steps": STEPS, "div_final": DIVISOR, "pct_start": PART},
    fastai07_one_cycle: {"lr": RATE, "total_steps": STEPS, "div": DIVISOR, "pct": ("not negative", 10)},
    fastai07_one_cycle_momentum: {"total_steps": STEPS, "pct": ("not negative", 10), "mom_max": HIGH,
                                  "mom_min": LOWER},
    titu1994_one_cycle: {"max_lr": RATE, "total_steps": STEPS, "end_percentage": PART, "scale_percentage": PART},
    titu1994_one_cycle_momentum: {"total_steps": STEPS, "end_percentage": PART, "maximum_momentum": HIGH,
                                  "minimum_momentum": LOWER},
    nachiket273_one_cycle: {"max_lr": RATE, "total_steps": STEPS, "prcnt": ("not negative", 10), "div": DIVISOR},
    nachiket273_one_cycle_momentum: {"total_steps": STEPS, "prcnt": ("not negative", 10)},
}  # fmt: skip


@pytest.mark.parametrize("function", ARGUMENTS)
def test_bad_arguments_are_refused(function):
    check_refusals(function, ARGUMENTS[function])


def test_parameters_as_levels():
    assert len(ARGUMENTS) + 2 == len({*ARGUMENTS, one_cycle, one_cycle_momentum})
    for function, arguments in ARGUMENTS.items():
        rates = [name for name, (kind, _) in arguments.items() if kind == "value"]
        good = {name: value for name, (_, value) in arguments.items()}
        for name, factor in itertools.product(rates, (0.5, 2.0)):
            scaled = function(**good | {name: good[name] * factor})(range(120))
            np.testing.assert_allclose(scaled, factor * function(**good)(range(120)), rtol=1e-14)
