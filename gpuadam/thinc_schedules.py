"""Schedules of thinc as ours, and ours as thinc has them; `gpuadam.thinc` shows what is for users.

In thinc 9 a schedule is an object that is called with the step, and its formula can be seen. In thinc 8 it is a
generator, of which nobody knows anything but the next value.
"""

from collections.abc import Callable, Iterator
from typing import Any

from thinc import schedules as theirs

from . import schedules
from .expressions import Expr, maximum, minimum, step, where

Schedule: Any = getattr(theirs, "Schedule", None)  # thinc 8 has none
OWN = "gpuadam"  # the name of schedules of thinc 9 that are ours


def as_schedule(schedule: Any) -> Expr:
    """A schedule of thinc.schedules as one of ours.

    >>> from thinc.schedules import decaying
    >>> as_schedule(decaying(0.1, 0.5))([0, 2, 6])
    array([0.1  , 0.05 , 0.025])

    Raises:
        TypeError: It is none of thinc's own, it follows a score, or it is a generator, as all are in thinc 8.
    """
    if is_own(schedule):
        return own(schedule)
    if Schedule is None:
        raise TypeError(
            "schedules of thinc 8 are generators, whose formula cannot be seen: an optimizer of gpuadam.thinc takes "
            "them as they are and reads them at each step; gpuadam.schedules has the formulas"
        )
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be one of thinc.schedules, got {type(schedule).__name__}")
    if schedule.name == "plateau":
        patience, scale = schedule.attrs["max_patience"], schedule.attrs["scale"]
        raise TypeError(
            "plateau follows a score, not the step: multiply lr by schedules.parameter('plateau', 1.0), and give the "
            f"scores to gpuadam.ReduceLROnPlateau(optimizer, 'max', {scale}, {patience - 1}, 0.0, 'abs', eps=0.0)"
        )
    if schedule.name not in FORMULAS or schedule._schedule.__module__ != "thinc.schedules":
        raise TypeError(
            f"schedule must be one of thinc.schedules, got {schedule.name!r}: write its formula with schedules.step, "
            "or sample it with schedules.sampled(schedule, steps)"
        )
    return FORMULAS[schedule.name](**schedule.attrs)


class Rates(Iterator[float]):
    """A schedule of ours as thinc 8 takes one: its values, one after another."""

    def __init__(self, expression: Expr) -> None:
        self.expression = expression
        self._step = 0

    def __next__(self) -> float:
        value = float(self.expression(self._step))
        self._step += 1
        return value


def _evaluated(schedule: Any, step: int, **extra: Any) -> float:
    return float(schedule.attrs["expression"](step))


def as_theirs(expression: Expr) -> Any:
    """A schedule of ours as this version of thinc takes one; our optimizers find the formula in it."""
    if Schedule is None:
        return Rates(expression)
    return Schedule(OWN, _evaluated, attrs={"expression": expression})


def is_own(schedule: Any) -> bool:
    """Whether `as_theirs` made it."""
    return isinstance(schedule, Rates) or (is_object(schedule) and schedule.name == OWN)


def own(schedule: Any) -> Expr:
    """The formula of a schedule that `as_theirs` made."""
    found: Expr = schedule.expression if isinstance(schedule, Rates) else schedule.attrs["expression"]
    return found


def is_object(schedule: Any) -> bool:
    """Whether it is a schedule as thinc 9 has them."""
    return Schedule is not None and isinstance(schedule, Schedule)


def _constant(rate: float) -> Expr:
    return schedules.constant(rate)


def _constant_then(rate: float, steps: int, schedule: Any) -> Expr:
    """What comes then sees the steps since the beginning."""
    return where(step < steps, schedules.constant(rate), as_schedule(schedule))


def _decaying(base_rate: float, decay: float, t: float) -> Expr:
    return base_rate / (1 + decay * (step + t))


def _compounding(start: float, stop: float, compound: float, t: float) -> Expr:
    """Down to `stop`, or up to it."""
    bound = maximum if start > stop else minimum
    return bound(start * compound ** (step + t), stop)


def _warmup_linear(initial_rate: float, warmup_steps: int, total_steps: int) -> Expr:
    return schedules.warmup_linear_decay(0.0, initial_rate, warmup_steps, total_steps)


def _slanted_triangular(max_rate: float, cut: int, cut_frac: float, ratio: int, t: float) -> Expr:
    """The line down goes on, below 0 in the end."""
    position = step + (t + 1)
    part = where(position < cut, position / cut, 1 - (position - cut) / (cut * (1 / cut_frac - 1)))
    return max_rate * (1 + part * (ratio - 1)) / ratio


def _cyclic_triangular(min_lr: float, max_lr: float, period: int) -> Expr:
    """Its first step is one step up already."""
    return schedules.shift(schedules.cyclic(min_lr, max_lr, period), -1)


FORMULAS: dict[str, Callable[..., Expr]] = {
    "compounding": _compounding,
    "constant": _constant,
    "constant_then": _constant_then,
    "cyclic_triangular": _cyclic_triangular,
    "decaying": _decaying,
    "slanted_triangular": _slanted_triangular,
    "warmup_linear": _warmup_linear,
}
