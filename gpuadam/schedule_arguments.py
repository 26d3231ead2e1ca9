"""Arguments of schedules, checked when the schedule is made, and the line between two values that all of them draw."""

import math
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

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


def read_piece(value: Scalar, name: str) -> Expr:
    """What a schedule is made of: an expression, whose values may be anything meanwhile, or a finite number."""
    expression = as_expr(value, name)
    require(not expression.is_constant or math.isfinite(expression.payload), name, "finite", value)
    return expression


def read_list(values: Any, name: str) -> list[Any]:
    try:
        return list(values)
    except TypeError as error:
        raise TypeError(f"{name} must be a list, got {values!r}") from error


def read_result(value: Any, name: str) -> float:
    """What a function of somebody else's gives: a number, or what holds one, such as an array of one element."""
    try:
        if isinstance(value, bool) or not hasattr(value, "__float__"):
            raise TypeError
        return float(value)
    except TypeError as error:
        raise TypeError(f"{name} must be a number, got {value!r}") from error


def require_choice(value: Any, name: str, choices: Collection[str]) -> None:
    allowed = " or ".join(map(repr, choices)) if len(choices) == 2 else f"one of {', '.join(choices)}"
    require(isinstance(value, str) and value in choices, name, allowed, value)


def read_flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def are_rising(places: list[float]) -> bool:
    return all(0 <= place < math.inf for place in places) and places == sorted(set(places))


def between(boundaries: Iterable[Number], count: int, what: str) -> list[float]:
    """The boundaries between so many pieces."""
    places = [as_number(boundary, f"boundary {i}") for i, boundary in enumerate(read_list(boundaries, "boundaries"))]
    allowed = f"finite, >= 0, rising and one fewer than the {count} {what}"
    require(are_rising(places) and len(places) == count - 1, "boundaries", allowed, places)
    return places


def interpolate(start: Expr, end: Expr, begin: float, finish: float, anneal: str) -> Expr:
    """From `start` at step `begin` to `end` at step `finish`, constant beyond, and exact at either end."""
    if finish <= begin:
        return end
    done, left = parts(begin, finish)
    return level(start, end, done, left, anneal)
