"""Schedules that only fall: constant, piecewise constant, exponential, polynomial, cosine."""

from collections.abc import Iterable

from .expressions import Expr, Number, Scalar, as_expr, floor, maximum, minimum, sinpi, step, table
from .schedule_arguments import between, read_number, read_value, require

__all__ = ["constant", "cosine_decay", "exponential_decay", "piecewise_constant", "polynomial_decay"]


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
    require(boundary in ("left", "right"), "boundary", "'left' or 'right'", boundary)
    entries = [read_number(value, f"value {i}", ">= 0") for i, value in enumerate(values)]
    places = between(boundaries, len(entries), "values")
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
    exponent = step / read_number(decay_steps, "decay_steps")
    value = read_value(lr, "lr") * read_number(decay_rate, "decay_rate") ** (floor(exponent) if staircase else exponent)
    bound = maximum if decay_rate < 1 else minimum
    return value if end_value is None else bound(value, read_value(end_value, "end_value"))


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
    length = read_number(decay_steps, "decay_steps")
    total = length * maximum(-floor(-step / length), 1) if cycle else as_expr(length)
    remaining, end = maximum(total - step, 0) / total, read_value(end_lr, "end_lr")
    return (read_value(lr, "lr") - end) * remaining ** read_number(power, "power") + end


def cosine_decay(lr: Scalar, decay_steps: Number, alpha: Number = 0.0) -> Expr:
    """`lr * ((1 - alpha) * (1 + cos(pi * step / decay_steps)) / 2 + alpha)` (SGDR, arXiv 1608.03983; TensorFlow).

    Args:
        decay_steps: Steps to `alpha * lr`, which then stays.

    >>> cosine_decay(1.0, 10)([0, 5, 10])
    array([1. , 0.5, 0. ])
    """
    length, alpha = read_number(decay_steps, "decay_steps"), read_number(alpha, "alpha", "in [0, 1]")
    remaining = maximum(length - step, 0) / length  # by the half angle: exact near the end
    return read_value(lr, "lr") * ((1 - alpha) * sinpi(remaining / 2) ** 2 + alpha)
