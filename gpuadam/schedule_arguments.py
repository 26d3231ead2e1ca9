"""Arguments of schedules, checked when the schedule is made, and the line between two values that all of them draw."""

import math
from collections.abc import Iterable

from .expressions import Expr, Number, Scalar, as_expr, as_number
from .shapes import level, parts

TINY, HUGE = math.ulp(0), math.nextafter(math.inf, 0)
RANGES = {"> 0": (TINY, HUGE), ">= 0": (0, HUGE), ">= 1": (1, HUGE), "in [0, 1]": (0, 1), "in [0, 0.5]": (0, 0.5)}


def require(holds: bool, name: str, allowed: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {allowed}, got {value!r}")


def read_number(value: Number, name: str, allowed: str = "> 0") -> float:
    number = as_number(value, name)
    low, high = RANGES[allowed]
    require(low <= number <= high, name, f"finite and {allowed}", value)
    return number


def read_value(value: Scalar, name: str, allowed: str = ">= 0") -> Expr:
    """A hyperparameter: an expression, or a number, whose range can be checked at once."""
    expression = as_expr(value, name)
    if expression.is_constant:
        read_number(expression.payload, name, allowed)
    return expression


def are_rising(places: list[float]) -> bool:
    return all(0 <= place < math.inf for place in places) and places == sorted(set(places))


def between(boundaries: Iterable[Number], count: int, what: str) -> list[float]:
    """The boundaries between so many pieces."""
    places = [as_number(boundary, f"boundary {i}") for i, boundary in enumerate(boundaries)]
    allowed = f"finite, >= 0, rising and one fewer than the {count} {what}"
    require(are_rising(places) and len(places) == count - 1, "boundaries", allowed, places)
    return places


def interpolate(start: Expr, end: Expr, begin: float, finish: float, anneal: str) -> Expr:
    """From `start` at step `begin` to `end` at step `finish`, constant beyond, and exact at either end."""
    if finish <= begin:
        return end
    done, left = parts(begin, finish)
    return level(start, end, done, left, anneal)
