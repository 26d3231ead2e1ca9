"""A schedule at another time: `step` in its formula replaced by an expression of the step."""

import math

from .expressions import Accumulator, Expr, Number, Scalar, as_number, step
from .program import Op
from .schedule_arguments import read_piece, require


def retimed(schedule: Scalar, time: Expr, moved: str, name: str = "schedule") -> Expr:
    """The schedule with `time` in place of `step`; what is shared stays shared. The count `updates` is not moved.

    Args:
        moved: Where to, for the error message.
        name: Of the argument that the schedule is.

    Raises:
        ValueError: It holds an accumulator, whose past cannot be moved, or is a number that is not finite.
    """
    expression = read_piece(schedule, name)
    done: dict[int, Expr] = {}
    waiting = [expression]
    while waiting:
        part = waiting[-1]
        if missing := [operand for operand in part.operands if id(operand) not in done]:
            waiting.extend(missing)
            continue
        if isinstance(part.payload, Accumulator):
            raise ValueError(f"accumulator {part.payload.name!r} starts at the first update, {moved}")
        operands = [done[id(operand)] for operand in part.operands]
        done.setdefault(id(part), time if part.op is Op.STEP else Expr(part.op, operands, part.payload))
        waiting.pop()
    return done[id(expression)]


def shift(schedule: Scalar, begin: Number) -> Expr:
    """The schedule at its own time, `step - begin` in place of `step`; an accumulator, whose past stays, is refused.

    >>> shift(step / 10, 5)([5, 10])
    array([0. , 0.5])
    """
    place = as_number(begin, "begin")
    require(math.isfinite(place), "begin", "finite", begin)
    return retimed(schedule, step - place, f"not at step {begin!r}")
