"""Schedules that rise by a straight line and then fall: linear, polynomial, cosine, exponential, slanted triangular.

Of all of them `decay_steps` is counted from the very start, warm-up INCLUDED, but for the exponential decay, which has
no end. `first=1` evaluates the whole of a schedule one step further on: the first update is update 1 of the formula.
"""

import math

from .expressions import Expr, Number, Scalar, cospi, cycle, floor, maximum, minimum, sinpi, step, where
from .schedule_arguments import interpolate, read_flag, read_number, read_value, require, require_choice
from .shapes import level, parts
from .warmups import linear_warmup

__all__ = [
    "slanted_triangular",
    "warmup_cosine_decay",
    "warmup_cosine_decay_restarts",
    "warmup_exponential_decay",
    "warmup_linear_decay",
    "warmup_polynomial_decay",
]


def _rise(init_value: Scalar, peak_value: Scalar, warmup_steps: Number, first: int) -> tuple[Expr, Expr, float]:
    """The warm-up, its peak, and the step where the fall begins."""
    init, peak = read_value(init_value, "init_value"), read_value(peak_value, "peak_value")
    return linear_warmup(peak, warmup_steps, init, first=first), peak, float(warmup_steps) - first


def _finish(decay_steps: Number, warmup_steps: Number, first: int) -> float:
    finish = read_number(decay_steps, "decay_steps")
    require(finish > warmup_steps, "decay_steps", f"> {warmup_steps=}", decay_steps)
    return finish - first


def warmup_linear_decay(init_value: Scalar, peak_value: Scalar, warmup_steps: Number, decay_steps: Number,
                        end_value: Scalar = 0.0, *, first: int = 0) -> Expr:  # fmt: skip
    """Up and down by straight lines (BERT; transformers' linear schedule, thinc's warmup_linear).

    Args:
        warmup_steps: Steps from `init_value` to `peak_value`; 0 starts at the peak.
        decay_steps: Steps from the very start, warm-up INCLUDED, to `end_value`, which then stays.
        first: Where on the line the first update lies, 0 or 1.

    >>> warmup_linear_decay(0.0, 1.0, 4, 8)([0, 2, 4, 5, 8, 9])
    array([0.  , 0.5 , 1.  , 0.75, 0.  , 0.  ])
    """
    rise, peak, begin = _rise(init_value, peak_value, warmup_steps, first)
    finish = _finish(decay_steps, warmup_steps, first)
    return where(step < begin, rise, interpolate(peak, read_value(end_value, "end_value"), begin, finish, "linear"))


def warmup_polynomial_decay(init_value: Scalar, peak_value: Scalar, warmup_steps: Number, decay_steps: Number,
                            end_value: Scalar = 0.0, power: Number = 1.0, *, first: int = 0) -> Expr:  # fmt: skip
    """Linear warm-up, then `end + (peak - end) * r ** power`, r of the decay being left (fairseq, transformers).

    Args:
        warmup_steps: Steps from `init_value` to `peak_value`; 0 starts at the peak.
        decay_steps: Steps from the very start, warm-up INCLUDED, to `end_value`, which then stays.
        first: Where on the line the first update lies, 0 or 1.

    >>> warmup_polynomial_decay(0.0, 1.0, 4, 8, power=2)([0, 2, 4, 5, 8, 9])
    array([0.    , 0.5   , 1.    , 0.5625, 0.    , 0.    ])
    """
    rise, peak, begin = _rise(init_value, peak_value, warmup_steps, first)
    _, left = parts(begin, _finish(decay_steps, warmup_steps, first))
    weight = left ** read_number(power, "power")
    return where(step < begin, rise, peak * weight + read_value(end_value, "end_value") * (1 - weight))


def warmup_cosine_decay(init_value: Scalar, peak_value: Scalar, warmup_steps: Number, decay_steps: Number,
                        end_value: Scalar = 0.0, exponent: Number = 1.0, *, num_cycles: Number = 0.5,
                        beyond: str = "hold", first: int = 0) -> Expr:  # fmt: skip
    """Linear warm-up, then `end + (peak - end) * ((1 + cos(2 pi num_cycles x)) / 2) ** exponent`, x of the decay done.

    It is `optax.warmup_cosine_decay_schedule` and transformers' cosine schedules, with a minimum or without.

    Args:
        warmup_steps: Steps from `init_value` to `peak_value`; 0 starts at the peak.
        decay_steps: Steps from the very start, warm-up INCLUDED, to `end_value`.
        exponent: Power of the cosine's part (optax).
        num_cycles: Waves in the decay, half of one to go down only.
        beyond: After the end "hold" its value (optax), or "continue" with the wave, which rises again (transformers).
        first: Where on the line the first update lies, 0 or 1.

    >>> warmup_cosine_decay(0.0, 1.0, 10, 110)([0, 5, 10, 60, 110])
    array([0. , 0.5, 1. , 0.5, 0. ])
    """
    require_choice(beyond, "beyond", ("hold", "continue"))
    rise, peak, begin = _rise(init_value, peak_value, warmup_steps, first)
    finish = _finish(decay_steps, warmup_steps, first)
    last = step if beyond == "continue" else minimum(step, finish)
    high, low = _wave((last - begin) / (finish - begin), (finish - last) / (finish - begin), num_cycles)
    if read_number(exponent, "exponent") != 1:
        high = high**exponent
        low = 1 - high
    return where(step < begin, rise, peak * high + read_value(end_value, "end_value") * low)


def _wave(done: Expr, left: Expr, num_cycles: Number) -> tuple[Expr, Expr]:
    """`(1 + cos(2 pi n done)) / 2` and what it lacks of 1, by the half angle; from the end, where that is a bottom."""
    count = read_number(num_cycles, "num_cycles")
    if count % 1 == 0.5:
        return sinpi(count * left) ** 2, cospi(count * left) ** 2
    return cospi(count * done) ** 2, sinpi(count * done) ** 2


def warmup_cosine_decay_restarts(init_value: Scalar, peak_value: Scalar, warmup_steps: Number, decay_steps: Number,
                                 end_value: Scalar = 0.0, num_cycles: Number = 1, *,
                                 first: int = 0) -> Expr:  # fmt: skip
    """Linear warm-up, then cosine decays from peak to end, one after the other (transformers' hard restarts).

    Args:
        warmup_steps: Steps from `init_value` to `peak_value`; 0 starts at the peak.
        decay_steps: Steps from the very start, warm-up INCLUDED, to the end of the last decay; `end_value` then stays.
        num_cycles: Decays, all of the same length; part of one may be the last.
        first: Where on the line the first update lies, 0 or 1.

    >>> warmup_cosine_decay_restarts(0.0, 1.0, 4, 12, num_cycles=2)([2, 4, 6, 8, 10, 12])
    array([0.5, 1. , 0.5, 1. , 0.5, 0. ])
    """
    rise, peak, begin = _rise(init_value, peak_value, warmup_steps, first)
    finish, end = _finish(decay_steps, warmup_steps, first), read_value(end_value, "end_value")
    _, done = cycle(maximum(step - begin, 0), (finish - begin) / read_number(num_cycles, "num_cycles"))
    return where(step < begin, rise, where(step < finish, level(end, peak, 1 - done, done, "cosine"), end))


def warmup_exponential_decay(init_value: Scalar, peak_value: Scalar, warmup_steps: Number, transition_steps: Number,
                             decay_rate: Number, transition_begin: Number = 0, *, staircase: bool = False,
                             end_value: Scalar | None = None, first: int = 0) -> Expr:  # fmt: skip
    """Linear warm-up, then `peak * decay_rate ** (x / transition_steps)` (`optax.warmup_exponential_decay_schedule`).

    Args:
        warmup_steps: Steps from `init_value` to `peak_value`; 0 starts at the peak.
        transition_steps: Steps that multiply the value by `decay_rate` once.
        transition_begin: Steps that the peak is held; x begins after them.
        staircase: Floor the exponent: one drop every `transition_steps`.
        end_value: Bound after the warm-up: a lower one if `decay_rate` < 1, else an upper one.
        first: Where on the line the first update lies, 0 or 1.

    >>> warmup_exponential_decay(0.0, 1.0, 2, 10, 0.5, 4, end_value=0.25)([0, 1, 2, 6, 16, 26, 99])
    array([0.  , 0.5 , 1.  , 1.  , 0.5 , 0.25, 0.25])
    """
    rise, peak, begin = _rise(init_value, peak_value, warmup_steps, first)
    held = read_number(transition_begin, "transition_begin", ">= 0")
    exponent = maximum(step - (begin + held), 0) / read_number(transition_steps, "transition_steps")
    value = peak * read_number(decay_rate, "decay_rate") ** (
        floor(exponent) if read_flag(staircase, "staircase") else exponent
    )
    if end_value is not None:
        value = (maximum if decay_rate < 1 else minimum)(value, read_value(end_value, "end_value"))
    return where(step < begin, rise, value)


def slanted_triangular(max_lr: Scalar, total_steps: Number, cut_frac: Number = 0.1, ratio: Number = 32.0,
                       *, first: int = 0) -> Expr:  # fmt: skip
    """Quickly up, slowly down (ULMFiT: Howard & Ruder, arXiv 1801.06146).

    `max_lr * (1 + p * (ratio - 1)) / ratio`, with p = t / cut up to `cut = floor(total_steps * cut_frac)`, then
    `1 - (t - cut) / (cut * (1 / cut_frac - 1))`.

    Args:
        total_steps: About the steps of the way up and down: the lowest value, `max_lr / ratio`, is back at
            `cut / cut_frac`, and then stays (in thinc the line goes on, below 0 in the end).
        cut_frac: Part of the steps that goes up.
        ratio: Highest value over the lowest.
        first: t of the first update: 0, or 1 (thinc).

    >>> slanted_triangular(1.0, 40, ratio=4)([0, 2, 4, 22, 40, 50])
    array([0.25 , 0.625, 1.   , 0.625, 0.25 , 0.25 ])
    """
    part, times = read_number(cut_frac, "cut_frac", "in [0, 1]"), read_number(ratio, "ratio", ">= 1")
    total = read_number(total_steps, "total_steps")
    cut = math.floor(total * part)
    require(cut >= 1 and part < 1, "cut_frac", f"< 1 and of {total_steps=} at least one whole step", cut_frac)
    peak = read_value(max_lr, "max_lr")
    return warmup_linear_decay(peak / times, peak, cut, cut / part, peak / times, first=first)
