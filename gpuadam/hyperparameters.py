"""Hyperparameters as the user gives them: numbers, which become slots that can be rewritten, or schedules."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from . import recipe
from .expressions import Expr, Parameter, as_number
from .program import Op
from .rules import FINITE, Range, Rule
from .strangers import refuse_stranger

PAIRS = {"betas": ("beta1", "beta2"), "nus": ("nu1", "nu2")}  # given as one tuple


def check_range(value: Any, allowed: Range, title: str) -> float:
    number = as_number(value, title)
    if not allowed.low <= number <= allowed.high:
        raise ValueError(f"{title} is {number!r}; allowed is {allowed.text}")
    return number


def read_options(options: Any, own: Mapping[str, Any], where: str) -> Any:
    """A dataclass of options with some of them replaced, checked against the types of its fields.

    Args:
        where: How an error ends: " of group 0", or nothing.
    """
    hints = get_type_hints(type(options))
    for name in (field.name for field in fields(options)):
        value, kind = own.get(name, getattr(options, name)), hints[name]
        if kind is float:
            check_range(value, FINITE, f"{name}{where}")
        elif kind is int:
            check_whole(value, f"{name}{where}")
        elif kind is bool or get_origin(kind) is not None:
            check_choice(value, (False, True) if kind is bool else get_args(kind), f"{name}{where}")
    return replace(options, **own)


def check_choice(value: Any, allowed: tuple[Any, ...], title: str) -> None:
    if not isinstance(value, bool | np.bool_ | str | None) or value not in allowed:
        raise ValueError(f"{title} is {value!r}; allowed are {allowed}")


def check_whole(value: Any, title: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 2**64:
        raise ValueError(f"{title} is {value!r}; allowed are whole numbers from 0 to 2**64 - 1")


def ranges(rule: Rule) -> Mapping[str, Range]:
    """The hyperparameters that a group may have, and their ranges."""
    return {**rule.hyperparameters, **recipe.HYPERPARAMETERS}


def read_hyperparameters(rule: Rule, settings: Mapping[str, Any], where: str, is_float32: bool) -> dict[str, Expr]:
    """Numbers become slots, expressions stay what they are; `betas` and `nus` are pairs, and None is left out.

    Args:
        where: How an error calls the group: " of group 0".
        is_float32: Whether the rule computes in float32 for one of its tensors.
    """
    found = {}
    for name, value in split_pairs(settings, where):
        if value is not None or name not in recipe.HYPERPARAMETERS:
            found[name] = read_hyperparameter(rule, name, value, where, is_float32)
    return found


def split_pairs(settings: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if name not in PAIRS:
            yield name, value
            continue
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise ValueError(f"{name}{where} must be a tuple of two, {' and '.join(PAIRS[name])}, got {value!r}")
        yield from zip(PAIRS[name], value, strict=True)


def read_hyperparameter(rule: Rule, name: str, value: Any, where: str, is_float32: bool) -> Expr:
    known = ranges(rule)
    if name not in known:
        raise ValueError(f"{rule.name} has no hyperparameter {name!r}; allowed are {sorted(known)}")
    title = f"{name}{where}"
    allowed = known[name]
    if isinstance(value, Expr):
        if name == rule.mixing:
            raise TypeError(f"{title} is a schedule, {value!r}; allowed is {allowed.text}, the same all the time")
        return value
    refuse_stranger(value, title)
    also = ", or a schedule" if name != rule.mixing else ""
    number = check_range(value, allowed._replace(text=allowed.text + also), title)
    if name in ("eps", "clip_value") and number > 0 and np.float32(number) == 0 and is_float32:
        zero = "0 or " if name == "eps" else ""
        raise ValueError(f"{title} is {number!r}, which is 0 in float32; allowed is {zero}>= 1.4e-45")
    return Expr(Op.VALUE, payload=Parameter(title, number, is_named=False))
