"""Schedules with a warm-up and no end: the inverse square root, and other powers."""

from .expressions import Expr, Number, Scalar, maximum, minimum, sqrt, step, where
from .schedule_arguments import read_number, read_value
from .warmups import linear_warmup

__all__ = ["inverse_sqrt", "noam", "power_schedule", "rsqrt"]


def inverse_sqrt(
    peak: Scalar, warmup_steps: Number, timescale: Number | None = None, init: Scalar = 0.0, *, first: int = 0
) -> Expr:
    """Linear warm-up, then `peak / sqrt(1 + (t - warmup_steps) / timescale)` (fairseq, transformers, Big Vision).

    Args:
        warmup_steps: Steps from `init` to `peak`; 0 starts at the peak.
        timescale: Steps after the warm-up that halve the square of the value; `warmup_steps` if not given, so that the
            value is `peak * sqrt(warmup_steps / t)`, or 10,000 if there is no warm-up.
        first: t of the first update, 0 or 1.

    >>> inverse_sqrt(1.0, 100)([0, 50, 100, 400])
    array([0. , 0.5, 1. , 0.5])
    """
    high = read_value(peak, "peak")
    rise, length = linear_warmup(high, warmup_steps, init, first=first), float(warmup_steps)
    scale = (length or 10_000.0) if timescale is None else read_number(timescale, "timescale")
    begin = length - first
    return where(step < begin, rise, high / sqrt((maximum(step - begin, 0) + scale) / scale))


def noam(model_size: Number, warmup_steps: Number, factor: Scalar = 1.0, *, first: int = 1) -> Expr:
    """`factor * model_size**-0.5 * min(n**-0.5, n * warmup_steps**-1.5)` (Vaswani et al., arXiv 1706.03762).

    Args:
        model_size: Width of the model.
        warmup_steps: Steps to the highest value, `factor / sqrt(model_size * warmup_steps)`.
        first: n of the first update: 1 (paper), or 0, so that the first update has 0.

    >>> noam(512, 4000)(3999) == 1 / (512 * 4000) ** 0.5
    True
    """
    square = read_number(model_size, "model_size") * read_number(warmup_steps, "warmup_steps")
    return inverse_sqrt(read_value(factor, "factor") / square**0.5, warmup_steps, first=first)


def rsqrt(lr: Scalar, timescale: Number, *, first: int = 0) -> Expr:
    """`lr * sqrt(timescale / max(t, timescale))`: constant, then the inverse root (T5, arXiv 1910.10683).

    Args:
        timescale: Steps that `lr` is held; T5's `1 / sqrt(max(t, k))` is `rsqrt(k**-0.5, k)`.
        first: t of the first update, 0 or 1.

    >>> rsqrt(0.01, 10_000)([0, 10_000, 40_000])
    array([0.01 , 0.01 , 0.005])
    """
    value = read_value(lr, "lr")
    return inverse_sqrt(value, read_number(timescale, "timescale"), init=value, first=first)


def power_schedule(
    max_lr: Scalar, amplitude: Scalar, power: Number, warmup_steps: Number = 0, *, first: int = 0
) -> Expr:
    """`min(max_lr, amplitude * t ** -power)` after a linear warm-up (Power scheduler, arXiv 2408.13359).

    Args:
        amplitude: What the power is multiplied by. The paper counts tokens, n = tokens_per_step * t, and takes
            `batch_size * a * n ** b`: here `amplitude=batch_size * a * tokens_per_step ** b, power=-b`.
        warmup_steps: Steps from 0 to `max_lr`.
        first: t of the first update, 0 or 1.

    >>> power_schedule(1.0, 10.0, 0.5, 4)([0, 2, 4, 100, 400])
    array([0. , 0.5, 1. , 1. , 0.5])
    """
    peak = read_value(max_lr, "max_lr")
    rise = linear_warmup(peak, warmup_steps, first=first)
    fall = read_value(amplitude, "amplitude") / maximum(step + first, 1) ** read_number(power, "power")
    return minimum(rise, fall)
