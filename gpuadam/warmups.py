"""Schedules that rise first: warm-ups, and decays that follow them."""

from .expressions import Expr, Number, Scalar, step, where
from .schedule_arguments import interpolate, read_number, read_value, require

__all__ = ["linear_warmup", "warmup_cosine_decay"]


def linear_warmup(peak: Scalar, warmup_steps: Number, init: Scalar = 0.0, *, first: int = 0) -> Expr:
    """A straight line from `init` to `peak`, which then stays (Goyal et al., arXiv 1706.02677).

    Args:
        warmup_steps: Steps to go up; 0 gives the peak at once.
        first: Where on the line the first update lies: 0, so that it has `init` (optax, Keras, transformers), or 1, so
            that it has `peak / warmup_steps` if `init` is 0, and update number `warmup_steps` has the peak (papers).

    >>> linear_warmup(1.0, 4)([0, 1, 4]), linear_warmup(1.0, 4, first=1)([0, 1, 3])
    (array([0.  , 0.25, 1.  ]), array([0.25, 0.5 , 1.  ]))
    """
    require(first in (0, 1), "first", "0 or 1", first)
    finish = read_number(warmup_steps, "warmup_steps", ">= 0") - first
    return interpolate(read_value(init, "init"), read_value(peak, "peak"), -first, finish, "linear")


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
    init, peak, end = (
        read_value(init_value, "init_value"),
        read_value(peak_value, "peak_value"),
        read_value(end_value, "end_value"),
    )
    rise, finish = linear_warmup(peak, warmup_steps, init), read_number(decay_steps, "decay_steps")
    require(finish > warmup_steps, "decay_steps", f"> {warmup_steps=}", decay_steps)
    return where(step < warmup_steps, rise, interpolate(peak, end, warmup_steps, finish, "cosine"))
