"""Decays to a lowest value that come back a number of times, each longer and lower than the one before (timm)."""

import math
from collections.abc import Callable

from .expressions import Expr, Number, Scalar, as_number, cycle, exp, sinpi, step, where
from .schedule_arguments import read_number, read_value, require

__all__ = ["cosine_cycles", "polynomial_cycles", "tanh_decay"]


def _cycles(lr: Scalar, decay_steps: Number, end_value: Scalar, weight: Callable[[Expr], Expr],
            cycle_mul: Number, cycle_decay: Number, cycle_limit: Number | None) -> Expr:  # fmt: skip
    """`end + (lr * cycle_decay**i - end) * weight(done)` in cycle i, and `end` after the last."""
    length, growth = read_number(decay_steps, "decay_steps"), read_number(cycle_mul, "cycle_mul", ">= 1")
    end, height = read_value(end_value, "end_value"), read_number(cycle_decay, "cycle_decay", ">= 0")
    index, done = cycle(step, length, growth)
    high = weight(done)
    value = read_value(lr, "lr") * height**index * high + end * (1 - high)
    if cycle_limit is None:
        return value
    count = read_number(cycle_limit, "cycle_limit", ">= 1")
    require(count % 1 == 0, "cycle_limit", "a whole number >= 1", cycle_limit)
    return where(index < count, value, end)


def cosine_cycles(lr: Scalar, decay_steps: Number, end_value: Scalar = 0.0, *, k: Number = 1.0,
                  cycle_mul: Number = 1.0, cycle_decay: Number = 1.0,
                  cycle_limit: Number | None = 1) -> Expr:  # fmt: skip
    """Cosine decays to `end_value`: `(1 + cos(pi * done**k)) / 2` of the way above it (timm's CosineLRScheduler).

    Args:
        decay_steps: Steps of the first cycle.
        k: Power of the part that is done: more than 1 stays up longer (k-decay, arXiv 2004.05909).
        cycle_mul: Length of a cycle over the one before, >= 1.
        cycle_decay: Peak of a cycle over the one before; the lowest value remains `end_value`.
        cycle_limit: Cycles, after which `end_value` stays; None for no end.

    >>> cosine_cycles(1.0, 4, 0.125, cycle_decay=0.5, cycle_limit=2)([0, 2, 4, 6, 8, 12])
    array([1.    , 0.5625, 0.5   , 0.3125, 0.125 , 0.125 ])
    """
    power = read_number(k, "k")
    return _cycles(lr, decay_steps, end_value, lambda done: sinpi(_remaining(done, power) / 2) ** 2,
                   cycle_mul, cycle_decay, cycle_limit)  # fmt: skip


def polynomial_cycles(lr: Scalar, decay_steps: Number, end_value: Scalar = 0.0, power: Number = 0.5, *,
                      k: Number = 1.0, cycle_mul: Number = 1.0, cycle_decay: Number = 1.0,
                      cycle_limit: Number | None = 1) -> Expr:  # fmt: skip
    """Polynomial decays to `end_value`: `(1 - done**k) ** power` of the way above it (timm's PolyLRScheduler).

    Args: those of `cosine_cycles`, and the power.

    >>> polynomial_cycles(1.0, 4, power=2)([0, 1, 2, 4])
    array([1.    , 0.5625, 0.25  , 0.    ])
    """
    inner, outer = read_number(k, "k"), read_number(power, "power")
    return _cycles(lr, decay_steps, end_value, lambda done: _remaining(done, inner) ** outer,
                   cycle_mul, cycle_decay, cycle_limit)  # fmt: skip


def _remaining(done: Expr, k: float) -> Expr:
    return 1 - (done if k == 1 else done**k)


def tanh_decay(lr: Scalar, decay_steps: Number, end_value: Scalar = 0.0, *, lower: Number = -7.0,
               upper: Number = 3.0, cycle_mul: Number = 1.0, cycle_decay: Number = 1.0,
               cycle_limit: Number | None = 1) -> Expr:  # fmt: skip
    """`(1 - tanh(z)) / 2` of the way above `end_value`, z from `lower` to `upper` (Hsueh et al., arXiv 1806.01593).

    Args: those of `cosine_cycles`, and the bounds of z. After the last cycle the value falls from
        `(1 - tanh(upper)) / 2` of the way, 0.0025, to `end_value` (timm's TanhLRScheduler).

    >>> tanh_decay(1.0, 10)([0, 5, 7, 9, 10]).round(4)
    array([1.   , 0.982, 0.5  , 0.018, 0.   ])
    """
    low, high = as_number(lower, "lower"), as_number(upper, "upper")
    require(-math.inf < low < high < math.inf, "lower", f"finite and < {upper=}", lower)
    # 1 / (1 + exp(2 z)): the same without the cancellation
    return _cycles(lr, decay_steps, end_value, lambda done: 1 / (1 + exp(2 * (low * (1 - done) + high * done))),
                   cycle_mul, cycle_decay, cycle_limit)  # fmt: skip
