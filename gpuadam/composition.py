"""Schedules made of others, or of a Python function; besides these the operators `+ - * / **`, `minimum`, `maximum`."""

import math
from collections.abc import Callable, Iterable
from statistics import NormalDist
from typing import Any

from .expressions import Expr, Number, Scalar, floor, maximum, minimum, step, table, uniform, where
from .retiming import retimed, shift
from .schedule_arguments import (
    between,
    read_flag,
    read_list,
    read_number,
    read_piece,
    read_result,
    read_value,
    require,
    require_choice,
)

__all__ = ["clip", "join", "noisy", "per_epoch", "repeat", "sampled", "sampled_epochs", "shift", "stretch"]


def join(schedules: Iterable[Scalar], boundaries: Iterable[Number]) -> Expr:
    """One schedule after the other, each at its own time (`optax.join_schedules`, PyTorch's SequentialLR).

    Args:
        schedules: Expressions or numbers. From the second on none may hold an accumulator.
        boundaries: Steps, rising, one fewer than the schedules: where each but the first begins, at its own step 0.

    >>> join([step / 2, 1 - step / 4], [2])([0, 1, 2, 4, 6])
    array([0. , 0.5, 1. , 0.5, 0. ])
    """
    pieces = [read_piece(schedule, f"schedule {i}") for i, schedule in enumerate(read_list(schedules, "schedules"))]
    places = between(boundaries, len(pieces), "schedules")
    joined = pieces[0]
    for piece, begin in zip(pieces[1:], places, strict=True):
        joined = where(step >= begin, shift(piece, begin), joined)
    return joined


def repeat(schedule: Scalar, steps: Number, times: int | None = None) -> Expr:
    """A schedule again and again, each time from its own step 0.

    Args:
        schedule: Expression or number, without an accumulator.
        steps: Steps of each time.
        times: How often, without end if not given. The last time is not cut off: the schedule goes on past its end.

    >>> repeat(1 - step / 4, 2)([0, 1, 2, 3, 4]), repeat(1 - step / 4, 2, times=2)([2, 3, 4])
    (array([1.  , 0.75, 1.  , 0.75, 1.  ]), array([1.  , 0.75, 0.5 ]))
    """
    length = read_number(steps, "steps")
    index = floor(step / length)
    if times is not None:
        require(read_number(times, "times") % 1 == 0, "times", "a whole number > 0", times)
        index = minimum(index, times - 1)
    return retimed(schedule, step - index * length, f"not again every {steps!r} steps")


def stretch(schedule: Scalar, factor: Number) -> Expr:
    """A schedule so many times as slow: at `step / factor`. Its values are scaled by the operator `*`.

    Args:
        schedule: Expression or number, without an accumulator.

    >>> stretch(1 - step / 10, 2)([0, 1, 10])
    array([1.  , 0.95, 0.5 ])
    """
    return retimed(schedule, step / read_number(factor, "factor"), f"and cannot be slowed down {factor!r} times")


def per_epoch(schedule: Scalar, steps_per_epoch: Number, *, staircase: bool = True) -> Expr:
    """A schedule that counts epochs, where `step` counts updates: at `floor(step / steps_per_epoch)`.

    Args:
        schedule: Expression or number of the epoch, 0 first, without an accumulator.
        staircase: One value for all of an epoch; False for one at each update, by the fractional epoch.

    >>> per_epoch(1 - step / 4, 10)([0, 9, 10]), per_epoch(1 - step / 4, 10, staircase=False)(5)
    (array([1.  , 1.  , 0.75]), 0.875)
    """
    epoch = step / read_number(steps_per_epoch, "steps_per_epoch")
    return retimed(
        schedule, floor(epoch) if read_flag(staircase, "staircase") else epoch, "and counts updates, not epochs"
    )


def clip(schedule: Scalar, low: Scalar, high: Scalar) -> Expr:
    """A schedule kept in [low, high].

    >>> clip(step / 10, 0.2, 0.5)([0, 3, 9])
    array([0.2, 0.3, 0.5])
    """
    bounds = read_value(low, "low"), read_value(high, "high")
    if bounds[0].is_constant and bounds[1].is_constant:
        require(bounds[0].payload <= bounds[1].payload, "high", f">= low={low!r}", high)
    return minimum(maximum(read_piece(schedule, "schedule"), bounds[0]), bounds[1])


def noisy(schedule: Scalar, noise_pct: Number = 0.67, *, noise_type: str = "normal", seed: Number = 42) -> Expr:
    """A schedule times `1 + noise`, another noise at every step (timm's `lr_noise`).

    Timm's own numbers cannot be had, only their distribution. One noise an epoch is `per_epoch(noisy(...), ...)`, noise
    from step 100 on `where(step < 100, schedule, noisy(schedule))`.

    Args:
        noise_pct: Bound of the noise, in (0, 1].
        noise_type: "uniform" between `-noise_pct` and `noise_pct`, or "normal": the standard normal distribution cut
            off there, as timm has it, by way of 1,024 values of equal probability.
        seed: Another one gives other noise, the same in every run.

    >>> abs(noisy(0.1, 0.5)(7) - 0.1) < 0.05
    True
    """
    require_choice(noise_type, "noise_type", ("normal", "uniform"))
    bound, random = read_number(noise_pct, "noise_pct"), uniform(read_number(seed, "seed", ">= 0"), step)
    require(bound <= 1, "noise_pct", "in (0, 1]", noise_pct)
    noise = bound * (2 * random - 1)
    if noise_type == "normal":
        normal, count = NormalDist(), 1024
        inside = math.erf(bound / math.sqrt(2))
        noise = table([normal.inv_cdf(0.5 + inside * ((i + 0.5) / count - 0.5)) for i in range(count)], count * random)
    return read_piece(schedule, "schedule") * (1 + noise)


def sampled(function: Callable[[int], float], steps: int) -> Expr:
    """A Python function of the step, called once for each of so many steps; its last value stays.

    >>> sampled(lambda k: 1 / (1 + k), 4)([0, 1, 3, 100])
    array([1.  , 0.5 , 0.25, 0.25])
    """
    count = read_count(steps, "steps")
    return table([_sample(function(k), f"function({k})") for k in range(count)], step)


def sampled_epochs(function: Callable[[int, float], float], epochs: int, steps_per_epoch: Number, *, lr: float) -> Expr:
    """A Python function that makes the value of an epoch from that of the one before (Keras's LearningRateScheduler).

    Args:
        function: Called once for each epoch, in order, with its number, 0 first, and the value so far, `lr` at first.
            What it gives is the epoch's value, which may so compound; Keras would round it to its `floatx` each time.
        epochs: How many; the last one's value stays.
        steps_per_epoch: Updates in each.

    >>> sampled_epochs(lambda epoch, lr: lr * 0.5 if epoch % 2 else lr, 6, 10, lr=1.0)([0, 9, 10, 29, 30, 1000])
    array([1.   , 1.   , 0.5  , 0.5  , 0.25 , 0.125])
    """
    values = []
    value = read_number(lr, "lr", ">= 0")
    for epoch in range(read_count(epochs, "epochs")):
        value = _sample(function(epoch, value), f"function({epoch}, {value!r})")
        values.append(value)
    return table(values, step / read_number(steps_per_epoch, "steps_per_epoch"))


def _sample(result: Any, call: str) -> float:
    return read_number(read_result(result, call), call, ">= 0")


def read_count(value: int, name: str) -> int:
    require(read_number(value, name) % 1 == 0 and value <= 1e7, name, "a whole number up to 10,000,000", value)
    return int(value)
