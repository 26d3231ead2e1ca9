"""Schedules: a hyperparameter as its formula over `step`, the updates applied before the one in question (0 at first).

Each function returns an `Expr`. Call it to see what the kernel will use, combine it (`+ * minimum join`), or write your
own from `step` and the functions of `expressions`, which this module hands on:

>>> inverse_sqrt = 0.1 * minimum(step / 100, 1) / sqrt(maximum(step / 100, 1))
>>> inverse_sqrt(50), inverse_sqrt(400)
(0.05, 0.05)

Values (lr, peak, ...) are finite numbers >= 0 or expressions, such as a `parameter`; lengths and boundaries are numbers
of steps. An argument out of range is refused with a ValueError when the schedule is made, one that is no number at all
with a TypeError; both name the argument.
"""

import math
from collections.abc import Callable, Iterable

from .expressions import (  # isort: skip
    Expr, Number, Scalar, absolute, accumulator, acos, as_expr, as_number, cospi, cycle, equal, exp, expm1, floor, log,
    log1p, maximum, minimum, parameter, shift, sinpi, sqrt, step, table, tanh, where,
)  # fmt: skip

__all__ = [
    "absolute", "accumulator", "acos", "constant", "cosine_decay", "cosine_decay_restarts", "cospi", "cycle", "cyclic",
    "equal", "exp", "expm1", "exponential_decay", "floor", "join", "linear_warmup", "log", "log1p", "maximum",
    "minimum", "one_cycle", "one_cycle_momentum", "parameter", "piecewise_constant", "polynomial_decay", "sampled",
    "sinpi", "sqrt", "step", "table", "tanh", "warmup_cosine_decay", "where",
]  # fmt: skip
TINY, HUGE = math.ulp(0), math.nextafter(math.inf, 0)
RANGES = {"> 0": (TINY, HUGE), ">= 0": (0, HUGE), ">= 1": (1, HUGE), "in [0, 1]": (0, 1), "in [0, 0.5]": (0, 0.5)}


def _require(holds: bool, name: str, allowed: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {allowed}, got {value!r}")


def _number(value: Number, name: str, allowed: str = "> 0") -> float:
    number = as_number(value, name)
    low, high = RANGES[allowed]
    _require(low <= number <= high, name, f"finite and {allowed}", value)
    return number


def _value(value: Scalar, name: str, allowed: str = ">= 0") -> Expr:
    """A hyperparameter: an expression, or a number, whose range can be checked at once."""
    expression = as_expr(value, name)
    if expression.is_constant:
        _number(expression.payload, name, allowed)
    return expression


def _between(boundaries: Iterable[Number], count: int, what: str) -> list[float]:
    """The boundaries between so many pieces."""
    places = [as_number(boundary, f"boundary {i}") for i, boundary in enumerate(boundaries)]
    rising = all(0 <= place < math.inf for place in places) and places == sorted(set(places))
    allowed = f"finite, >= 0, rising and one fewer than the {count} {what}"
    _require(rising and len(places) == count - 1, "boundaries", allowed, places)
    return places


def _interpolate(start: Expr, end: Expr, begin: float, finish: float, anneal: str) -> Expr:
    """From `start` at step `begin` to `end` at step `finish`, constant beyond, and exact at either end."""
    if finish <= begin:
        return end
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


def piecewise_constant(boundaries: Iterable[Number], values: Iterable[Number], *, boundary: str = "left") -> Expr:
    """`values[i]`, with i the number of boundaries that are passed (`tf.train.piecewise_constant`).

    Args:
        boundaries: Steps, rising, one fewer than the values.
        values: Numbers; multiply the schedule by a `parameter` to move them all.
        boundary: Which value holds at a boundary: the "left" one (TensorFlow, Keras) or the "right" (optax, PyTorch).

    >>> [piecewise_constant([10], [0.1, 0.01], boundary=side)(10) for side in ("left", "right")]
    [0.1, 0.01]
    """
    _require(boundary in ("left", "right"), "boundary", "'left' or 'right'", boundary)
    entries = [_number(value, f"value {i}", ">= 0") for i, value in enumerate(values)]
    places = _between(boundaries, len(entries), "values")
    return table(entries, sum((step > place if boundary == "left" else step >= place for place in places), as_expr(0)))


def exponential_decay(
    lr: Scalar, decay_steps: Number, decay_rate: Number, *, staircase: bool = False, end_value: Scalar | None = None
) -> Expr:
    """`lr * decay_rate ** (step / decay_steps)` (`tf.train.exponential_decay`).

    Args:
        decay_steps: Steps that multiply the value by `decay_rate` once.
        staircase: Floor the exponent: one drop every `decay_steps`.
        end_value: Bound (optax): a lower one if `decay_rate` < 1, else an upper one, as in a learning rate finder.

    >>> exponential_decay(1.0, 10, 0.5, staircase=True)(29)
    0.25
    """
    exponent = step / _number(decay_steps, "decay_steps")
    value = _value(lr, "lr") * _number(decay_rate, "decay_rate") ** (floor(exponent) if staircase else exponent)
    bound = maximum if decay_rate < 1 else minimum
    return value if end_value is None else bound(value, _value(end_value, "end_value"))


def polynomial_decay(
    lr: Scalar, decay_steps: Number, end_lr: Scalar = 1e-4, power: Number = 1.0, *, cycle: bool = False
) -> Expr:
    """`(lr - end_lr) * (1 - min(step, T) / T) ** power + end_lr`, T = decay_steps (`tf.train.polynomial_decay`).

    Args:
        decay_steps: Steps to `end_lr`, which then stays.
        cycle: When T is passed, stretch it to the next multiple of `decay_steps`: a jump up, lower every time.

    >>> polynomial_decay(1.0, 10, 0.0, power=2)(5)
    0.25
    """
    length = _number(decay_steps, "decay_steps")
    total = length * maximum(-floor(-step / length), 1) if cycle else as_expr(length)
    remaining, end = maximum(total - step, 0) / total, _value(end_lr, "end_lr")
    return (_value(lr, "lr") - end) * remaining ** _number(power, "power") + end


def cosine_decay(lr: Scalar, decay_steps: Number, alpha: Number = 0.0) -> Expr:
    """`lr * ((1 - alpha) * (1 + cos(pi * step / decay_steps)) / 2 + alpha)` (SGDR, arXiv 1608.03983; TensorFlow).

    Args:
        decay_steps: Steps to `alpha * lr`, which then stays.

    >>> cosine_decay(1.0, 10)([0, 5, 10])
    array([1. , 0.5, 0. ])
    """
    length, alpha = _number(decay_steps, "decay_steps"), _number(alpha, "alpha", "in [0, 1]")
    remaining = maximum(length - step, 0) / length  # by the half angle: exact near the end
    return _value(lr, "lr") * ((1 - alpha) * sinpi(remaining / 2) ** 2 + alpha)


def linear_warmup(peak: Scalar, warmup_steps: Number, init: Scalar = 0.0, *, first: int = 0) -> Expr:
    """A straight line from `init` to `peak`, which then stays (Goyal et al., arXiv 1706.02677).

    Args:
        warmup_steps: Steps to go up; 0 gives the peak at once.
        first: Where on the line the first update lies: 0, so that it has `init` (optax, Keras, transformers), or 1, so
            that it has `peak / warmup_steps` if `init` is 0, and update number `warmup_steps` has the peak (papers).

    >>> linear_warmup(1.0, 4)([0, 1, 4]), linear_warmup(1.0, 4, first=1)([0, 1, 3])
    (array([0.  , 0.25, 1.  ]), array([0.25, 0.5 , 1.  ]))
    """
    _require(first in (0, 1), "first", "0 or 1", first)
    finish = _number(warmup_steps, "warmup_steps", ">= 0") - first
    return _interpolate(_value(init, "init"), _value(peak, "peak"), -first, finish, "linear")


def warmup_cosine_decay(
    init_value: Scalar, peak_value: Scalar, warmup_steps: Number, decay_steps: Number, end_value: Scalar = 0.0
) -> Expr:
    """Linear warm-up, then cosine decay (`optax.warmup_cosine_decay_schedule`).

    Args:
        warmup_steps: Steps from `init_value` to `peak_value`; 0 starts at the peak.
        decay_steps: Steps from the very start, warm-up INCLUDED, to `end_value`, which then stays.

    >>> warmup_cosine_decay(0.0, 1.0, 10, 110)([0, 5, 10, 60, 110])
    array([0. , 0.5, 1. , 0.5, 0. ])
    """
    init, peak, end = _value(init_value, "init_value"), _value(peak_value, "peak_value"), _value(end_value, "end_value")
    rise, finish = linear_warmup(peak, warmup_steps, init), _number(decay_steps, "decay_steps")
    _require(finish > warmup_steps, "decay_steps", f"> {warmup_steps=}", decay_steps)
    return where(step < warmup_steps, rise, _interpolate(peak, end, warmup_steps, finish, "cosine"))


def _phases(levels: list[Expr], total_steps: Number, pct_start: Number, anneal: str, three_phase: bool) -> Expr:
    """Through the levels first, peak, (three phases only:) middle and last, where PyTorch's OneCycleLR has them."""
    _require(anneal in ("cosine", "linear"), "anneal", "'cosine' or 'linear'", anneal)
    first, peak, middle, last = levels
    total = _number(total_steps, "total_steps")
    start = _number(pct_start, "pct_start", "in [0, 0.5]" if three_phase else "in [0, 1]")
    top, bottom, end = start * total - 1, 2 * start * total - 2, total - 1
    position = minimum(step, end)
    fall = _interpolate(peak, last, top, end, anneal)
    if three_phase:
        fall = _interpolate(peak, middle, top, bottom, anneal)
        fall = where(position > bottom, _interpolate(middle, last, bottom, end, anneal), fall)
    return where(position > top, fall, _interpolate(first, peak, 0, top, anneal))


def one_cycle(max_lr: Scalar, total_steps: Number, *, pct_start: Number = 0.3, div_factor: Number = 25.0,
              final_div_factor: Number = 1e4, anneal: str = "cosine", three_phase: bool = False) -> Expr:  # fmt: skip
    """Up to `max_lr`, then far down (Smith & Topin, arXiv 1708.07120), at the places of PyTorch's OneCycleLR.

    Args:
        total_steps: Steps in all; the last one's value stays, where OneCycleLR overshoots.
        pct_start: Part of the steps that goes up: `max_lr` is reached at `pct_start * total_steps - 1`.
        div_factor: `max_lr` over the first value.
        final_div_factor: First value over the last.
        anneal: Shape of the phases, "cosine" or "linear".
        three_phase: Come down to the first value as fast as it went up, only then to the last.

    >>> one_cycle(1.0, 100, anneal="linear")([0, 29, 99, 1000])
    array([4.e-02, 1.e+00, 4.e-06, 4.e-06])
    """
    peak = _value(max_lr, "max_lr")
    low = peak / _number(div_factor, "div_factor")
    last = low / _number(final_div_factor, "final_div_factor")
    return _phases([low, peak, low, last], total_steps, pct_start, anneal, three_phase)


def one_cycle_momentum(total_steps: Number, *, base_momentum: Scalar = 0.85, max_momentum: Scalar = 0.95,
                       pct_start: Number = 0.3, anneal: str = "cosine", three_phase: bool = False) -> Expr:  # fmt: skip
    """The momentum, or Adam's beta1, that moves against `one_cycle`: down to `base_momentum` and back up.

    >>> one_cycle_momentum(100)([0, 29, 99])
    array([0.95, 0.85, 0.95])
    """
    high = _value(max_momentum, "max_momentum", "in [0, 1]")
    low = _value(base_momentum, "base_momentum", "in [0, 1]")
    return _phases([high, low, high, high], total_steps, pct_start, anneal, three_phase)


def cyclic(base_lr: Scalar, max_lr: Scalar, step_size: Number, *, step_size_down: Number | None = None,
           mode: str = "triangular", gamma: Number = 1.0) -> Expr:  # fmt: skip
    """`base_lr + (max_lr - base_lr) * triangle * scale` (Smith, arXiv 1506.01186; bckenstler/CLR, PyTorch's CyclicLR).

    Args:
        base_lr: Lowest value. The momentum that moves against it has them swapped: `cyclic(0.95, 0.85, ...)`.
        step_size: Steps from `base_lr` up to `max_lr`.
        step_size_down: Steps back down, `step_size` if not given.
        mode: The scale: "triangular" 1, "triangular2" halved in each cycle, "exp_range" `gamma ** step`.

    >>> cyclic(0.0, 1.0, 4, mode="triangular2")([0, 1, 4, 6, 8, 12])
    array([0.  , 0.25, 1.  , 0.5 , 0.  , 0.5 ])
    """
    base, up, rate = _value(base_lr, "base_lr"), _number(step_size, "step_size"), _number(gamma, "gamma", "in [0, 1]")
    down = up if step_size_down is None else _number(step_size_down, "step_size_down")
    index, _ = cycle(step, up + down)
    place = step - index * (up + down)
    triangle = maximum(minimum(place / up, (up + down - place) / down), 0)
    scales = {"triangular": as_expr(1), "triangular2": 0.5**index, "exp_range": rate**step}
    _require(mode in scales, "mode", f"one of {', '.join(scales)}", mode)
    return base + (_value(max_lr, "max_lr") - base) * triangle * scales[mode]


def cosine_decay_restarts(
    lr: Scalar, first_decay_steps: Number, t_mul: Number = 2.0, m_mul: Number = 1.0, alpha: Number = 0.0
) -> Expr:
    """Cosine decay that starts again and again (SGDR, arXiv 1608.03983; `tf.train.cosine_decay_restarts`).

    `lr * ((1 - alpha) * m_mul**i * (1 + cos(pi * f)) / 2 + alpha)` in cycle i, f of which is done.

    Args:
        first_decay_steps: Steps of the first cycle.
        t_mul: Length of a cycle over the one before, >= 1.
        m_mul: Height of a cycle over the one before.

    >>> cosine_decay_restarts(1.0, 10, m_mul=0.5)([5, 10, 20, 30])
    array([0.5 , 0.5 , 0.25, 0.25])
    """
    height, alpha = _number(m_mul, "m_mul", ">= 0"), _number(alpha, "alpha", "in [0, 1]")
    index, done = cycle(step, _number(first_decay_steps, "first_decay_steps"), _number(t_mul, "t_mul", ">= 1"))
    return _value(lr, "lr") * ((1 - alpha) * height**index * sinpi((1 - done) / 2) ** 2 + alpha)


def join(schedules: Iterable[Scalar], boundaries: Iterable[Number]) -> Expr:
    """One schedule after the other, each at its own time (`optax.join_schedules`, PyTorch's SequentialLR).

    Args:
        schedules: Expressions or numbers. From the second on none may hold an accumulator.
        boundaries: Steps, rising, one fewer than the schedules: where each but the first begins, at its own step 0.

    >>> join([linear_warmup(1.0, 2), cosine_decay(1.0, 4)], [2])([0, 1, 2, 4, 6])
    array([0. , 0.5, 1. , 0.5, 0. ])
    """
    pieces = [as_expr(schedule, f"schedule {i}") for i, schedule in enumerate(schedules)]
    places = _between(boundaries, len(pieces), "schedules")
    joined = pieces[0]
    for piece, begin in zip(pieces[1:], places, strict=True):
        joined = where(step >= begin, shift(piece, begin), joined)
    return joined


def sampled(function: Callable[[int], float], steps: int) -> Expr:
    """A Python function of the step, called once for each of so many steps; its last value stays.

    >>> sampled(lambda k: 1 / (1 + k), 4)([0, 1, 3, 100])
    array([1.  , 0.5 , 0.25, 0.25])
    """
    _require(_number(steps, "steps") % 1 == 0 and steps <= 1e7, "steps", "a whole number up to 10,000,000", steps)
    return table([_number(float(function(k)), f"function({k})", ">= 0") for k in range(int(steps))], step)
