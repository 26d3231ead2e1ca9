"""The schedules as thinc's registry finds them, so that a config can name them: `@schedules = "gpuadam.wsd.v1"`.

Its arguments may be schedules that a config names in their turn, ours and those of thinc that have a formula.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from . import schedules
from .schedule_text import read_schedule
from .thinc_schedules import Rates, as_schedule, as_theirs, is_object

UNWRITABLE = {"join", "sampled", "sampled_epochs"}  # a config holds no functions, and no lists of schedules
NAMES = tuple(name for family in schedules.FAMILIES for name in family.__all__ if name not in UNWRITABLE)


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return registered(getattr(schedules, name))


def formula(formula: str) -> Any:
    """Any schedule as text, which is parsed and never run: `formula = "0.001 * (step + 1) ** -0.5"`."""
    return as_theirs(read_schedule(formula))


@functools.cache
def registered(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of `schedules` that takes and gives what thinc's config has for schedules."""

    @functools.wraps(function)
    def make(*arguments: Any, **keywords: Any) -> Any:
        named = {name: formula_of(value) for name, value in keywords.items()}
        return as_theirs(function(*map(formula_of, arguments), **named))

    own = inspect.signature(function)
    free = [argument.replace(annotation=Any) for argument in own.parameters.values()]
    make.__signature__ = own.replace(parameters=free, return_annotation=Any)  # type: ignore[attr-defined]
    return make


def formula_of(value: Any) -> Any:
    """The formula of a schedule; anything else as it is."""
    return as_schedule(value) if isinstance(value, Rates) or is_object(value) else value
