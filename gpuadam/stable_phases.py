"""Warm-up, stable, decay: the last part can be put off until it is known when the training shall end."""

import math

from .expressions import Expr, Number, Scalar, expm1, maximum, step, where
from .schedule_arguments import read_number, read_value, require, require_choice
from .shapes import SHAPES, level, parts, power_part
from .warmups import warmup

__all__ = ["trapezoid", "wsd"]

DECAYS = (*SHAPES, "power")


def wsd(peak: Scalar, warmup_steps: Number, stable_steps: Number, decay_steps: Number, *, init: Scalar = 0.0,
        end: Scalar = 0.0, warmup_shape: str = "linear", stable_power: Number = 0.0, timescale: Number | None = None,
        decay_shape: str = "1-sqrt", decay_power: Number = 0.5, decay_ratio: Number = 0.1) -> Expr:  # fmt: skip
    """Warm-up, stable, decay (MiniCPM, arXiv 2404.06395; transformers' and timm's WSD schedulers).

    In the decay, x of which is done, the value is `end + (stable - end) * f(x)`.

    Args:
        warmup_steps: Steps from `init` to `peak`.
        stable_steps: Steps that the peak stays.
        decay_steps: Steps to `end`, which then stays.
        warmup_shape: "linear", "cosine", "1-sqrt" or "exponential", as in `warmup`.
        stable_power: Let the peak sink as `(1 + t / timescale) ** -stable_power`, through the decay too, but not below
            `end`: 0.5 for the inverse square root with a cooldown (arXiv 2106.04560).
        timescale: See there; `warmup_steps` if not given.
        decay_shape: f: "linear", `1 - x`; "cosine", `(1 + cos(pi x)) / 2`; "1-sqrt", `1 - sqrt(x)` (arXiv 2405.18392);
            "power", `1 - x ** decay_power`; "exponential", `(r ** x - r) / (1 - r)` with r = decay_ratio, which is the
            same factor in every step (MiniCPM) if `end` is `decay_ratio * peak`.

    >>> wsd(1.0, 2, 4, 4, decay_shape="linear")([0, 1, 2, 6, 8, 10, 11])
    array([0. , 0.5, 1. , 1. , 0.5, 0. , 0. ])
    """
    require_choice(warmup_shape, "warmup_shape", SHAPES)
    high, low = read_value(peak, "peak"), read_value(end, "end")
    rise = warmup(high, warmup_steps, init, shape=warmup_shape)
    top = float(warmup_steps)
    stable = maximum(high * _stable(top, stable_power, timescale), low) if stable_power != 0 else high
    begin = top + read_number(stable_steps, "stable_steps", ">= 0")
    done, left = parts(begin, begin + read_number(decay_steps, "decay_steps"))
    fall = _fall(low, stable, (left, done), decay_shape, decay_power, decay_ratio)
    return where(step < top, rise, where(step < begin, stable, fall))


def _stable(top: float, power: Number, timescale: Number | None) -> Expr:
    scale = read_number(top if timescale is None else timescale, "timescale")
    return (maximum(step - top, 0) / scale + 1) ** -read_number(power, "stable_power", ">= 0")


def _fall(low: Expr, high: Expr, way: tuple[Expr, Expr], shape: str, power: Number, ratio: Number) -> Expr:
    require_choice(shape, "decay_shape", DECAYS)
    exponent, factor = read_number(power, "decay_power"), read_number(ratio, "decay_ratio", "in [0, 1]")
    require(0 < factor < 1, "decay_ratio", "in (0, 1)", ratio)
    left, done = way
    if shape == "exponential":
        weight = expm1(-math.log(factor) * left) * factor / (1 - factor)
        return low * (1 - weight) + high * weight
    if shape == "power":
        return low * done**exponent + high * power_part(done, left, exponent)
    return level(low, high, left, done, shape)


def trapezoid(peak: Scalar, warmup_steps: Number, decay_steps: Number, total_steps: Number, end: Scalar = 0.0) -> Expr:
    """Up, flat and down by straight lines: `wsd` with the length of the whole (arXiv 2106.04560, 2405.18392).

    Args:
        warmup_steps: Steps from 0 to `peak`.
        decay_steps: The last of `total_steps`, down to `end`, which then stays.

    >>> trapezoid(1.0, 2, 4, 10)([0, 1, 2, 6, 8, 10])
    array([0. , 0.5, 1. , 1. , 0.5, 0. ])
    """
    ramps = read_number(warmup_steps, "warmup_steps", ">= 0") + read_number(decay_steps, "decay_steps")
    total = read_number(total_steps, "total_steps")
    require(total >= ramps, "total_steps", f">= {warmup_steps=} + {decay_steps=}", total_steps)
    return wsd(peak, warmup_steps, total - ramps, decay_steps, end=end, decay_shape="linear")
