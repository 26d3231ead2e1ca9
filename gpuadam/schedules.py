"""Schedules: a hyperparameter as its formula over `step`, the updates applied before the one in question, 0 at the first.

Each function returns an `Expr`. Call it to see what the kernel will use, combine it (`+ * minimum join`), or write your
own from `step` and the functions of `expressions`, which this module hands on:

>>> inverse_sqrt = 0.1 * minimum(step / 100, 1) / sqrt(maximum(step / 100, 1))
>>> inverse_sqrt(50), inverse_sqrt(400)
(0.05, 0.05)

Values (lr, peak, ...) are finite numbers >= 0 or expressions, such as a `parameter`. Lengths and boundaries are numbers
of steps. An argument out of its range is refused with a ValueError when the schedule is made, one that is no number at
all with a TypeError; both name the argument.
"""

import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, Literal

from .expressions import (
    Expr,
    Number,
    Scalar,
    absolute,
    accumulator,
    acos,
    as_expr,
    as_number,
    cospi,
    cycle,
    equal,
    exp,
    expm1,
    floor,
    log,
    log1p,
    maximum,
    minimum,
    parameter,
    shift,
    sinpi,
    sqrt,
    step,
    table,
    tanh,
    where,
)

__all__ = ["absolute", "accumulator", "acos", "constant", "cosine_decay", "cosine_decay_restarts", "cospi", "cycle",
           "cyclic", "equal", "exp", "expm1", "exponential_decay", "floor", "join", "linear_warmup", "log", "log1p",
           "maximum", "minimum", "one_cycle", "one_cycle_momentum", "parameter", "piecewise_constant",
           "polynomial_decay", "sampled", "sinpi", "sqrt", "step", "table", "tanh", "warmup_cosine_decay", "where"]  # fmt: skip

Anneal = Literal["cosine", "linear"]


def _require(holds: bool, name: str, allowed: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {allowed}, got {value!r}")


def _value(value: Scalar, name: str, high: float = math.inf) -> Expr:
    """A hyperparameter: an expression, or a number whose range can be checked at once."""
    expression = as_expr(value, name)
    if expression.is_constant:
        allowed = "finite and >= 0" if high == math.inf else f"from 0 to {high:g}"
        _require(0 <= expression.payload <= high and expression.payload < math.inf, name, allowed, value)
    return expression


def _positive(value: Number, name: str) -> float:
    number = as_number(value, name)
    _require(0 < number < math.inf, name, "a finite number > 0", value)
    return number


def _fraction(value: Number, name: str) -> float:
    number = as_number(value, name)
    _require(0 <= number <= 1, name, "a number from 0 to 1", value)
    return number


def _choice(value: str, name: str, *choices: str) -> None:
    _require(value in choices, name, "one of " + ", ".join(map(repr, choices)), value)


def _between(boundaries: Iterable[Number], count: int, what: str) -> list[float]:
    """The boundaries between so many pieces."""
    places = [as_number(boundary, f"boundary {i}") for i, boundary in enumerate(boundaries)]
    _require(len(places) == count - 1, "boundaries", f"one fewer than the {count} {what}", places)
    rising = all(a < b for a, b in pairwise([*places, math.inf])) and min(places, default=0) >= 0
    _require(rising, "boundaries", "finite, >= 0 and rising", places)
    return places


def _interpolate(start: Scalar, end: Scalar, begin: float, finish: float, anneal: str) -> Expr:
    """From `start` at step `begin` to `end` at step `finish`, constant beyond, and exact at either end."""
    if finish <= begin:
        return as_expr(end)
    weights = [minimum(maximum(steps, 0) / (finish - begin), 1) for steps in (finish - step, step - begin)]
    if anneal == "cosine":
        weights = [sinpi(weight / 2) ** 2 for weight in weights]
    return start * weights[0] + end * weights[1]


def constant(value: Scalar) -> Expr:
    """The same value at every step.

    >>> constant(0.1)(7)
    0.1
    """
    return _value(value, "value")


def piecewise_constant(
    boundaries: Iterable[Number], values: Iterable[Number], *, boundary: Literal["left", "right"] = "left"
) -> Expr:
    """`values[i]`, i being the number of boundaries that lie behind (`tf.train.piecewise_constant`).

    Args:
        boundaries: Steps, rising, one fewer than the values.
        values: Numbers; multiply the schedule by a `parameter` to move them all.
        boundary: Side to which a boundary itself belongs: "left", the old value (TensorFlow, Keras), or "right", the
            new one (optax, PyTorch's MultiStepLR).

    >>> [piecewise_constant([10], [0.1, 0.01], boundary=side)(10) for side in ("left", "right")]
    [0.1, 0.01]
    """
    _choice(boundary, "boundary", "left", "right")
    entries = list(values)
    places = _between(boundaries, len(entries), "values")
    for i, entry in enumerate(entries):
        _value(as_number(entry, f"value {i}"), f"value {i}")
    return table(entries, sum((step > b if boundary == "left" else step >= b for b in places), as_expr(0)))


def exponential_decay(
    lr: Scalar, decay_steps: Number, decay_rate: Number, *, staircase: bool = False, end_value: Scalar | None = None
) -> Expr:
    """`lr * decay_rate ** (step / decay_steps)` (`tf.train.exponential_decay`).

    A rate above 1 grows: `lr=start, decay_rate=end / start, end_value=end` is the sweep of a learning rate finder.

    Args:
        decay_steps: Steps in which the value is multiplied by `decay_rate` once.
        staircase: Floor the exponent, so that it drops at once every `decay_steps`.
        end_value: What it may not pass (optax), below for a rate < 1, above otherwise.

    >>> exponential_decay(1.0, 10, 0.5, staircase=True)(29)
    0.25
    """
    exponent = step / _positive(decay_steps, "decay_steps")
    value = _value(lr, "lr") * _positive(decay_rate, "decay_rate") ** (floor(exponent) if staircase else exponent)
    if end_value is None:
        return value
    return (maximum if decay_rate < 1 else minimum)(value, _value(end_value, "end_value"))


def polynomial_decay(
    lr: Scalar, decay_steps: Number, end_lr: Scalar = 1e-4, power: Number = 1.0, *, cycle: bool = False
) -> Expr:
    """`(lr - end_lr) * (1 - min(step, T) / T) ** power + end_lr`, T = decay_steps (`tf.train.polynomial_decay`).

    Args:
        decay_steps: Steps to reach `end_lr`, which then stays.
        power: Exponent > 0; 1 is a straight line.
        cycle: Stretch T to the next multiple of `decay_steps` whenever it is passed, as TensorFlow does: at
            `n * decay_steps` the value is `end_lr`, right after it `1/(n+1)` of the way back (for power 1).

    >>> polynomial_decay(1.0, 10, 0.0, power=2)(5)
    0.25
    """
    length, power = _positive(decay_steps, "decay_steps"), _positive(power, "power")
    total = length * maximum(-floor(-step / length), 1) if cycle else as_expr(length)
    end = _value(end_lr, "end_lr")
    return (_value(lr, "lr") - end) * (maximum(total - step, 0) / total) ** power + end


def cosine_decay(lr: Scalar, decay_steps: Number, alpha: Number = 0.0) -> Expr:
    """`lr * ((1 - alpha) * (1 + cos(pi * step / decay_steps)) / 2 + alpha)` (SGDR, arXiv 1608.03983; TensorFlow).

    Written with the square of the sine of the half angle, which keeps all its digits near the end.

    Args:
        decay_steps: Steps to reach `alpha * lr`, which then stays.
        alpha: Last value over the first, from 0 to 1.

    >>> cosine_decay(1.0, 10)(5)
    0.5
    """
    length, alpha = _positive(decay_steps, "decay_steps"), _fraction(alpha, "alpha")
    remaining = maximum(length - step, 0) / length
    return _value(lr, "lr") * ((1 - alpha) * sinpi(remaining / 2) ** 2 + alpha)


def linear_warmup(peak: Scalar, warmup_steps: Number, init: Scalar = 0.0, *, first: Literal[0, 1] = 0) -> Expr:
    """A straight line from `init` to `peak`, which then stays (Goyal et al., arXiv 1706.02677).

    Args:
        warmup_steps: Steps to go up; 0 gives the peak at once.
        first: Where on the line the first update lies: 0, so that it has `init`, which may be 0 (optax, Keras,
            transformers), or 1, so that it has `peak / warmup_steps` and update number `warmup_steps` the peak (papers).

    >>> linear_warmup(1.0, 4)([0, 1, 4, 5]), linear_warmup(1.0, 4, first=1)([0, 3, 4])
    (array([0.  , 0.25, 1.  , 1.  ]), array([0.25, 1.  , 1.  ]))
    """
    _require(first in (0, 1), "first", "0 or 1", first)
    length = as_number(warmup_steps, "warmup_steps")
    _require(0 <= length < math.inf, "warmup_steps", "a finite number >= 0", warmup_steps)
    return _interpolate(_value(init, "init"), _value(peak, "peak"), -first, length - first, "linear")


def warmup_cosine_decay(
    init_value: Scalar, peak_value: Scalar, warmup_steps: Number, decay_steps: Number, end_value: Scalar = 0.0
) -> Expr:
    """Linear warm-up, then cosine decay (`optax.warmup_cosine_decay_schedule`).

    Args:
        warmup_steps: Steps from `init_value` to `peak_value`; 0 starts at the peak.
        decay_steps: Steps from the start, the warm-up INCLUDED, to `end_value`, which then stays.

    >>> warmup_cosine_decay(0.0, 1.0, 10, 110)([0, 5, 10, 60, 110])
    array([0. , 0.5, 1. , 0.5, 0. ])
    """
    peak, end = _value(peak_value, "peak_value"), _value(end_value, "end_value")
    rise = linear_warmup(peak, warmup_steps, _value(init_value, "init_value"))
    _require(warmup_steps < _positive(decay_steps, "decay_steps"), "decay_steps", f"> {warmup_steps=}", decay_steps)
    return where(step < warmup_steps, rise, _interpolate(peak, end, warmup_steps, decay_steps, "cosine"))


def _phases(levels: list[Expr], total_steps: Number, pct_start: Number, anneal: str, three_phase: bool) -> Expr:
    """Through four levels (first, peak, middle, last) in OneCycleLR's two or three phases."""
    first, peak, middle, last = levels
    total, part = _positive(total_steps, "total_steps"), _fraction(pct_start, "pct_start")
    _choice(anneal, "anneal", "cosine", "linear")
    top, end = part * total - 1, total - 1
    position = minimum(step, end)
    fall = _interpolate(peak, last, top, end, anneal)
    if three_phase:
        _require(part <= 0.5, "pct_start", "a number from 0 to 0.5 with three phases", pct_start)
        bottom = 2 * part * total - 2
        tail = _interpolate(middle, last, bottom, end, anneal)
        fall = where(position > bottom, tail, _interpolate(peak, middle, top, bottom, anneal))
    return where(position > top, fall, _interpolate(first, peak, 0, top, anneal))


def one_cycle(
    max_lr: Scalar, total_steps: Number, *, pct_start: Number = 0.3, div_factor: Number = 25.0,
    final_div_factor: Number = 1e4, anneal: Anneal = "cosine", three_phase: bool = False,
) -> Expr:  # fmt: skip
    """Up to `max_lr`, then far down (Smith & Topin, arXiv 1708.07120), in the steps of PyTorch's OneCycleLR.

    The top is at step `pct_start * total_steps - 1`, the end at `total_steps - 1`; the last value stays, where OneCycleLR
    overshoots.

    Args:
        pct_start: Part of the steps that goes up, from 0 to 1; three phases leave at most 0.5.
        div_factor: `max_lr` over the first value.
        final_div_factor: First value over the last.
        three_phase: Come down to the first value as fast as it went up, then to the last one.

    >>> one_cycle(1.0, 100, anneal="linear")([0, 29, 99, 1000])
    array([4.e-02, 1.e+00, 4.e-06, 4.e-06])
    """
    peak = _value(max_lr, "max_lr")
    low = peak / _positive(div_factor, "div_factor")
    last = low / _positive(final_div_factor, "final_div_factor")
    return _phases([low, peak, low, last], total_steps, pct_start, anneal, three_phase)


def one_cycle_momentum(
    total_steps: Number, *, base_momentum: Scalar = 0.85, max_momentum: Scalar = 0.95, pct_start: Number = 0.3,
    anneal: Anneal = "cosine", three_phase: bool = False,
) -> Expr:  # fmt: skip
    """The momentum, or beta1 of Adam, that moves against `one_cycle`: down to `base_momentum` and back up.

    >>> one_cycle_momentum(100)([0, 29, 99])
    array([0.95, 0.85, 0.95])
    """
    high, low = _value(max_momentum, "max_momentum", 1), _value(base_momentum, "base_momentum", 1)
    return _phases([high, low, high, high], total_steps, pct_start, anneal, three_phase)


def cyclic(
    base_lr: Scalar, max_lr: Scalar, step_size: Number, *, step_size_down: Number | None = None,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular", gamma: Number = 1.0,
) -> Expr:  # fmt: skip
    """`base_lr + (max_lr - base_lr) * triangle * scale` (Smith, arXiv 1506.01186; bckenstler/CLR, PyTorch's CyclicLR).

    The momentum that moves against it is `cyclic(max_momentum, base_momentum, ...)`.

    Args:
        step_size: Steps from `base_lr` up to `max_lr`.
        step_size_down: Steps back down; `step_size` if not given.
        mode: The scale: "triangular" 1, "triangular2" halved with each cycle, "exp_range" `gamma ** step`.
        gamma: From 0 to 1.

    >>> cyclic(0.0, 1.0, 4, mode="triangular2")([0, 1, 4, 6, 8, 12])
    array([0.  , 0.25, 1.  , 0.5 , 0.  , 0.5 ])
    """
    _choice(mode, "mode", "triangular", "triangular2", "exp_range")
    up, rate = _positive(step_size, "step_size"), _fraction(gamma, "gamma")
    down = up if step_size_down is None else _positive(step_size_down, "step_size_down")
    index, _ = cycle(step, up + down)
    place = step - index * (up + down)
    scale = {"triangular": as_expr(1), "triangular2": 0.5**index, "exp_range": rate**step}[mode]
    base = _value(base_lr, "base_lr")
    triangle = maximum(minimum(place / up, (up + down - place) / down), 0)
    return base + (_value(max_lr, "max_lr") - base) * triangle * scale


def cosine_decay_restarts(
    lr: Scalar, first_decay_steps: Number, t_mul: Number = 2.0, m_mul: Number = 1.0, alpha: Number = 0.0
) -> Expr:
    """Cosine decay that starts again and again (SGDR, arXiv 1608.03983; `tf.train.cosine_decay_restarts`).

    `lr * ((1 - alpha) * m_mul**i * (1 + cos(pi * f)) / 2 + alpha)` in cycle i, of which f is done. Restarts are counted,
    not found by a logarithm as in TensorFlow, which misses some of them.

    Args:
        first_decay_steps: Steps of the first cycle.
        t_mul: Length of each cycle over the one before, >= 1.
        m_mul: Height of each cycle over the one before, >= 0.
        alpha: Smallest value over `lr`, from 0 to 1.

    >>> cosine_decay_restarts(1.0, 10, m_mul=0.5)([5, 10, 20, 30])
    array([0.5  , 0.5  , 0.25 , 0.25 ])
    """
    _require(1 <= as_number(t_mul, "t_mul") < math.inf, "t_mul", "finite and >= 1", t_mul)
    _require(0 <= as_number(m_mul, "m_mul") < math.inf, "m_mul", "finite and >= 0", m_mul)
    alpha = _fraction(alpha, "alpha")
    index, done = cycle(step, _positive(first_decay_steps, "first_decay_steps"), t_mul)
    return _value(lr, "lr") * ((1 - alpha) * m_mul**index * sinpi((1 - done) / 2) ** 2 + alpha)


def join(schedules: Iterable[Scalar], boundaries: Iterable[Number]) -> Expr:
    """One schedule after the other (`optax.join_schedules`, PyTorch's SequentialLR).

    Args:
        schedules: Expressions or numbers; from the second on each counts its steps from its own boundary.
        boundaries: Steps, rising, one fewer than the schedules; a boundary belongs to the schedule that begins there.

    Raises:
        ValueError: Besides bad boundaries: a schedule other than the first holds an accumulator.

    >>> join([linear_warmup(1.0, 2), cosine_decay(1.0, 4)], [2])(range(7))
    array([0.        , 0.5       , 1.        , 0.85355339, 0.5       ,
           0.14644661, 0.        ])
    """
    pieces = [as_expr(schedule, f"schedule {i}") for i, schedule in enumerate(schedules)]
    places = _between(boundaries, len(pieces), "schedules")
    joined = pieces[0]
    for piece, begin in zip(pieces[1:], places, strict=True):
        joined = where(step >= begin, shift(piece, begin), joined)
    return joined


def sampled(function: Callable[[int], Any], steps: int) -> Expr:
    """A Python function of the step, called once for each of so many steps; its last value stays.

    Args:
        function: Takes the step, an int, and returns what `float` takes; finite and >= 0.
        steps: How many steps to sample; 8 bytes each on the device.

    >>> sampled(lambda k: 1 / (1 + k), 4)([0, 1, 3, 100])
    array([1.  , 0.5 , 0.25, 0.25])
    """
    _require(_positive(steps, "steps") % 1 == 0, "steps", "a whole number", steps)
    values = [float(function(k)) for k in range(int(steps))]
    for k, value in enumerate(values):
        _value(value, f"function({k})")
    return table(values, step)
