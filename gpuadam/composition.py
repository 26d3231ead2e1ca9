"""Schedules made of others, or of a Python function."""

from collections.abc import Callable, Iterable

from .expressions import Expr, Number, Scalar, as_expr, shift, step, table, where
from .schedule_arguments import between, read_number, require

__all__ = ["join", "sampled"]


def join(schedules: Iterable[Scalar], boundaries: Iterable[Number]) -> Expr:
    """One schedule after the other, each at its own time (`optax.join_schedules`, PyTorch's SequentialLR).

    Args:
        schedules: Expressions or numbers. From the second on none may hold an accumulator.
        boundaries: Steps, rising, one fewer than the schedules: where each but the first begins, at its own step 0.

    >>> join([step / 2, 1 - step / 4], [2])([0, 1, 2, 4, 6])
    array([0. , 0.5, 1. , 0.5, 0. ])
    """
    pieces = [as_expr(schedule, f"schedule {i}") for i, schedule in enumerate(schedules)]
    places = between(boundaries, len(pieces), "schedules")
    joined = pieces[0]
    for piece, begin in zip(pieces[1:], places, strict=True):
        joined = where(step >= begin, shift(piece, begin), joined)
    return joined


def sampled(function: Callable[[int], float], steps: int) -> Expr:
    """A Python function of the step, called once for each of so many steps; its last value stays.

    >>> sampled(lambda k: 1 / (1 + k), 4)([0, 1, 3, 100])
    array([1.  , 0.5 , 0.25, 0.25])
    """
    require(read_number(steps, "steps") % 1 == 0 and steps <= 1e7, "steps", "a whole number up to 10,000,000", steps)
    return table([read_number(float(function(k)), f"function({k})", ">= 0") for k in range(int(steps))], step)
