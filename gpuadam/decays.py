"""Schedules that fall: constant, in steps, exponential, inverse time, linear, polynomial, cosine."""

import itertools
import math
import operator
from collections.abc import Iterable, Sequence

from .expressions import (
    Expr,
    Number,
    Scalar,
    as_expr,
    as_number,
    cospi,
    exp,
    floor,
    maximum,
    minimum,
    normal,
    sinpi,
    sqrt,
    step,
    table,
)  # fmt: skip
from .schedule_arguments import (
    are_rising,
    between,
    interpolate,
    read_flag,
    read_list,
    read_number,
    read_value,
    require,
    require_choice,
)
from .shapes import level, parts

__all__ = [
    "constant", "cosine_decay", "exponential_decay", "inverse_time_decay", "linear_cosine_decay", "linear_decay",
    "multi_step_decay", "natural_exp_decay", "noisy_linear_cosine_decay", "piecewise_constant", "piecewise_interpolate",
    "polynomial_decay", "step_decay",
]  # fmt: skip


def constant(value: Scalar) -> Expr:
    """The same value at every step.

    >>> constant(0.1)(7)
    0.1
    """
    return read_value(value, "value")


def piecewise_constant(boundaries: Iterable[Number], values: Iterable[Number], *, boundary: str = "left") -> Expr:
    """`values[i]`, with i the number of boundaries that are passed (`tf.train.piecewise_constant`).

    Args:
        boundaries: Steps, rising, one fewer than the values.
        values: Numbers; multiply the schedule by a `parameter` to move them all.
        boundary: Which value holds at a boundary: the "left" one (TensorFlow, Keras) or the "right" (optax, PyTorch).

    >>> [piecewise_constant([10], [0.1, 0.01], boundary=side)(10) for side in ("left", "right")]
    [0.1, 0.01]
    """
    require_choice(boundary, "boundary", ("left", "right"))
    entries = [read_number(value, f"value {i}", ">= 0") for i, value in enumerate(read_list(values, "values"))]
    places = between(boundaries, len(entries), "values")
    return table(entries, sum((step > place if boundary == "left" else step >= place for place in places), as_expr(0)))


def piecewise_interpolate(knots: Iterable[Number], values: Iterable[Number], *, shape: str = "linear") -> Expr:
    """Through `values[i]` at step `knots[i]`, with the first value before and the last one after them all.

    With two knots a line, with three a triangle, and so on: the `PiecewiseLinear` of many a repository, and
    `optax.piecewise_interpolate_schedule`, whose values are products of its scales.

    Args:
        knots: Steps, rising, one for each value.
        values: Numbers; multiply the schedule by a `parameter` to move them all.
        shape: Of the way from knot to knot, "linear" or "cosine".

    >>> piecewise_interpolate([0, 5, 25], [0.0, 0.4, 0.0])([0, 1, 5, 15, 100])
    array([0.  , 0.08, 0.4 , 0.2 , 0.  ])
    """
    require_choice(shape, "shape", ("linear", "cosine"))
    places = [as_number(knot, f"knot {i}") for i, knot in enumerate(read_list(knots, "knots"))]
    heights = [read_number(value, f"value {i}", ">= 0") for i, value in enumerate(read_list(values, "values"))]
    allowed = f"at least two, finite, >= 0, rising and as many as the {len(heights)} values"
    require(are_rising(places) and len(places) == len(heights) > 1, "knots", allowed, places)
    index = sum((step >= place for place in places[1:-1]), as_expr(0))
    done, left = parts(table(places[:-1], index), table(places[1:], index))
    return level(table(heights[:-1], index), table(heights[1:], index), done, left, shape)


def step_decay(lr: Scalar, step_size: Number, gamma: Number = 0.1) -> Expr:
    """`lr * gamma ** floor(step / step_size)` (PyTorch's StepLR).

    >>> step_decay(1.0, 10, 0.5)([0, 9, 10, 29])
    array([1.  , 1.  , 0.5 , 0.25])
    """
    index = floor(step / read_number(step_size, "step_size"))
    return read_value(lr, "lr") * read_number(gamma, "gamma") ** index


def multi_step_decay(lr: Scalar, milestones: Iterable[Number], gamma: Number | Sequence[Number] = 0.1) -> Expr:
    """`lr` times `gamma` for each milestone that is reached (PyTorch's MultiStepLR).

    Args:
        milestones: Steps, in order, each the first with the new value. One that stands twice counts twice.
        gamma: A factor, or as many as there are milestones (`optax.piecewise_constant_schedule`).

    >>> multi_step_decay(1.0, [30, 80], 0.5)([29, 30, 80]), multi_step_decay(1.0, [30, 80], [0.5, 0.1])(80)
    (array([1.  , 0.5 , 0.25]), 0.05)
    """
    places = [as_number(milestone, f"milestone {i}") for i, milestone in enumerate(read_list(milestones, "milestones"))]
    in_order = all(0 <= place < math.inf for place in places) and places == sorted(places)
    require(in_order and len(places) > 0, "milestones", "at least one, finite, >= 0 and in order", places)
    if isinstance(gamma, Sequence) and not isinstance(gamma, str):
        factors = [read_number(factor, f"gamma {i}", ">= 0") for i, factor in enumerate(gamma)]
    else:
        factors = [read_number(gamma, "gamma", ">= 0")] * len(places)
    require(len(factors) == len(places), "gamma", f"one number, or one for each of {len(places)} milestones", gamma)
    heights = itertools.accumulate(factors, operator.mul, initial=1.0)
    return read_value(lr, "lr") * table(heights, sum((step >= place for place in places), as_expr(0)))


def exponential_decay(lr: Scalar, decay_steps: Number, decay_rate: Number, *, staircase: bool = False,
                      end_value: Scalar | None = None, transition_begin: Number = 0) -> Expr:  # fmt: skip
    """`lr * decay_rate ** (step / decay_steps)` (`tf.train.exponential_decay`; PyTorch's ExponentialLR at 1 step).

    Args:
        decay_steps: Steps that multiply the value by `decay_rate` once.
        staircase: Floor the exponent: one drop every `decay_steps`.
        end_value: Bound (optax): a lower one if `decay_rate` < 1, else an upper one, as in a learning rate finder.
        transition_begin: Step up to which the value is `lr`, and from which on the exponent counts (optax).

    >>> exponential_decay(1.0, 10, 0.5, staircase=True)(29)
    0.25
    """
    begin = read_number(transition_begin, "transition_begin", ">= 0")
    exponent = (maximum(step - begin, 0) if begin else step) / read_number(decay_steps, "decay_steps")
    value = read_value(lr, "lr") * read_number(decay_rate, "decay_rate") ** (
        floor(exponent) if read_flag(staircase, "staircase") else exponent
    )
    bound = maximum if decay_rate < 1 else minimum
    return value if end_value is None else bound(value, read_value(end_value, "end_value"))


def natural_exp_decay(lr: Scalar, decay_steps: Number, decay_rate: Number, *, staircase: bool = False) -> Expr:
    """`lr * exp(-decay_rate * step / decay_steps)` (`tf.train.natural_exp_decay`).

    Args:
        decay_steps: Steps that multiply the value by `exp(-decay_rate)` once.
        staircase: Floor `step / decay_steps`: one drop every `decay_steps`.

    >>> round(natural_exp_decay(1.0, 10, 0.5)(20), 6)
    0.367879
    """
    passed = step / read_number(decay_steps, "decay_steps")
    return read_value(lr, "lr") * exp(
        -read_number(decay_rate, "decay_rate") * (floor(passed) if read_flag(staircase, "staircase") else passed)
    )


def inverse_time_decay(
    lr: Scalar, decay_steps: Number, decay_rate: Number, *, staircase: bool = False, power: Number = 1.0
) -> Expr:
    """`lr / (1 + decay_rate * step / decay_steps) ** power` (`tf.train.inverse_time_decay`).

    With `decay_steps` 1 the `decay=` of older Keras optimizers; with a `power` Caffe's "inv" policy.

    Args:
        decay_steps: Steps after which `decay_rate` is added to the denominator once.
        staircase: Floor `step / decay_steps`: one drop every `decay_steps`.

    >>> inverse_time_decay(1.0, 10, 0.5)([0, 20, 60])
    array([1.  , 0.5 , 0.25])
    """
    passed = step / read_number(decay_steps, "decay_steps")
    denominator = 1 + read_number(decay_rate, "decay_rate") * (
        floor(passed) if read_flag(staircase, "staircase") else passed
    )
    exponent = read_number(power, "power")
    return read_value(lr, "lr") / (denominator if exponent == 1 else denominator**exponent)


def linear_decay(lr: Scalar, decay_steps: Number, end_lr: Scalar = 0.0, *, transition_begin: Number = 0) -> Expr:
    """A straight line from `lr` to `end_lr`, which then stays (`optax.linear_schedule`, PyTorch's LinearLR).

    Args:
        decay_steps: Steps on the way.
        end_lr: May be above `lr`.
        transition_begin: Step up to which the value is `lr`.

    >>> linear_decay(1.0, 10)([0, 1, 10, 11])
    array([1. , 0.9, 0. , 0. ])
    """
    begin, length = read_number(transition_begin, "transition_begin", ">= 0"), read_number(decay_steps, "decay_steps")
    return interpolate(read_value(lr, "lr"), read_value(end_lr, "end_lr"), begin, begin + length, "linear")


def polynomial_decay(lr: Scalar, decay_steps: Number, end_lr: Scalar = 1e-4, power: Number = 1.0, *,
                     cycle: bool = False, transition_begin: Number = 0) -> Expr:  # fmt: skip
    """`(lr - end_lr) * (1 - min(step, T) / T) ** power + end_lr`, T = decay_steps (`tf.train.polynomial_decay`).

    Args:
        decay_steps: Steps to `end_lr`, which then stays.
        cycle: When T is passed, stretch it to the next multiple of `decay_steps`: a jump up, lower every time.
        transition_begin: Step up to which the value is `lr`, and from which on the steps count (optax).

    >>> polynomial_decay(1.0, 10, 0.0, power=2)(5)
    0.25
    """
    length, begin = read_number(decay_steps, "decay_steps"), read_number(transition_begin, "transition_begin", ">= 0")
    passed = maximum(step - begin, 0) if begin else step
    total = length * maximum(-floor(-passed / length), 1) if read_flag(cycle, "cycle") else as_expr(length)
    remaining, end = maximum(total - passed, 0) / total, read_value(end_lr, "end_lr")
    return (read_value(lr, "lr") - end) * remaining ** read_number(power, "power") + end


def cosine_decay(
    lr: Scalar, decay_steps: Number, alpha: Number = 0.0, *, exponent: Number = 1.0, beyond: str = "hold"
) -> Expr:
    """`lr * ((1 - alpha) * ((1 + cos(pi * step / decay_steps)) / 2) ** exponent + alpha)` (SGDR, arXiv 1608.03983).

    TensorFlow's, Keras's and optax's; PyTorch's CosineAnnealingLR, whose `eta_min` is `alpha * lr`.

    Args:
        decay_steps: Steps to `alpha * lr`.
        exponent: Of the cosine part (optax).
        beyond: Past `decay_steps`, "hold" the last value, or "continue" the cosine up to `lr` and so on (PyTorch).

    >>> cosine_decay(1.0, 10)([0, 5, 10, 20]), cosine_decay(1.0, 10, beyond="continue")([10, 15, 20])
    (array([1. , 0.5, 0. , 0. ]), array([0. , 0.5, 1. ]))
    """
    require_choice(beyond, "beyond", ("hold", "continue"))
    length, alpha = read_number(decay_steps, "decay_steps"), read_number(alpha, "alpha", "in [0, 1]")
    passed = step - floor(step / (2 * length)) * (2 * length)
    remaining = (maximum(length - step, 0) if beyond == "hold" else abs(length - passed)) / length
    height = sinpi(remaining / 2) ** (2 * read_number(exponent, "exponent"))  # by the half angle: exact near the end
    return read_value(lr, "lr") * ((1 - alpha) * height + alpha)


def _linear_cosine(
    lr: Scalar, decay_steps: Number, num_periods: Number, alpha: Number, beta: Number, noise: Scalar
) -> Expr:
    length, periods = read_number(decay_steps, "decay_steps"), read_number(num_periods, "num_periods")
    alpha, beta = read_number(alpha, "alpha", ">= 0"), read_number(beta, "beta", ">= 0")
    remaining = maximum(length - step, 0) / length
    odd = 2 * periods % 2 == 1  # then the cosine ends at 0, near which its half angle is exact if counted from there
    root = sinpi(periods * remaining) if odd else cospi(periods * (minimum(step, length) / length))
    return read_value(lr, "lr") * ((alpha + remaining + noise) * root**2 + beta)


def linear_cosine_decay(lr: Scalar, decay_steps: Number, num_periods: Number = 0.5, alpha: Number = 0.0,
                        beta: Number = 0.001) -> Expr:  # fmt: skip
    """`lr * ((alpha + 1 - x) * (1 + cos(2 * pi * num_periods * x)) / 2 + beta)` with `x = min(step / decay_steps, 1)`.

    Neural Optimizer Search, arXiv 1709.07417; `tf.train.linear_cosine_decay`. It starts at `lr * (1 + alpha + beta)`.

    Args:
        decay_steps: Steps to the last value, which then stays.
        num_periods: Periods of the cosine on the way.

    >>> linear_cosine_decay(1.0, 10, beta=0.5)([0, 5, 10, 11])
    array([1.5 , 0.75, 0.5 , 0.5 ])
    """
    return _linear_cosine(lr, decay_steps, num_periods, alpha, beta, 0)


def noisy_linear_cosine_decay(lr: Scalar, decay_steps: Number, initial_variance: Number = 1.0,
                              variance_decay: Number = 0.55, num_periods: Number = 0.5, alpha: Number = 0.0,
                              beta: Number = 0.001, *, seed: Number = 0) -> Expr:  # fmt: skip
    """`linear_cosine_decay` with normal noise added to its `1 - x` (`tf.train.noisy_linear_cosine_decay`).

    The noise has mean 0 and variance `initial_variance / (1 + min(step, decay_steps)) ** variance_decay`. TensorFlow's
    own numbers cannot be had, only their distribution. A learning rate must not be negative, as this may be:
    `maximum(noisy_linear_cosine_decay(...), 0)`.

    Args:
        seed: Another one gives other noise, the same in every run.

    >>> noisy_linear_cosine_decay(1.0, 10, beta=0.5)(10)
    0.5
    """
    variance = read_number(initial_variance, "initial_variance", ">= 0")
    fall = read_number(variance_decay, "variance_decay", ">= 0")
    time = 1 + minimum(step, read_number(decay_steps, "decay_steps"))
    noise = normal(read_number(seed, "seed", ">= 0"), step) * sqrt(variance / time**fall)
    return _linear_cosine(lr, decay_steps, num_periods, alpha, beta, noise)
