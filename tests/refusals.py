"""What a schedule must refuse, by the kind of each argument, and what the refusal must say."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from gpuadam import schedules
from gpuadam.expressions import Expr

NO_FINITE_NUMBER = [math.nan, math.inf, -math.inf]
BAD: dict[str, list[Any]] = {
    "value": [-1, -1e-300, *NO_FINITE_NUMBER],
    "positive": [0, -1, -0.5, *NO_FINITE_NUMBER],
    "not negative": [-1, -0.5, *NO_FINITE_NUMBER],
    "fraction": [-0.1, 1.5, *NO_FINITE_NUMBER],
    "momentum": [-0.1, 1.5, *NO_FINITE_NUMBER],
    "growth": [0.5, 0, -2, *NO_FINITE_NUMBER],
    "whole": [0, -1, 2.5, *NO_FINITE_NUMBER],
    "choice": ["nonsense", "", None, ["nonsense"], schedules.step],
}
SCHEDULES = ("value", "momentum")  # the kinds that may be expressions


def check_refusals(function: Callable[..., Expr], arguments: Mapping[str, tuple[str, Any]]) -> None:
    """Each argument, a good value of which is given with its kind, in turn out of range and no number at all."""
    good = {name: value for name, (_, value) in arguments.items()}
    assert isinstance(function(**good), Expr)
    for name, (kind, _) in arguments.items():
        for value in BAD[kind]:
            as_float = repr(float(value)) if isinstance(value, int) else repr(value)
            says = f"^{name} must be .+, got ({re.escape(repr(value))}|{re.escape(as_float)})$"
            with pytest.raises(ValueError, match=says):
                function(**good | {name: value})
        if kind == "choice":
            continue
        for value in ("0.1", True, np.array([0.1]), 1j, *([] if kind in SCHEDULES else [schedules.step])):
            with pytest.raises(TypeError, match=f"^{name} must be a number, got "):
                function(**good | {name: value})
        if kind in SCHEDULES:
            with pytest.raises(TypeError, match=rf"^{name} is a plain callable.+schedules\.sampled\(callable, steps\)"):
                function(**good | {name: abs})
            assert isinstance(function(**good | {name: schedules.parameter("value", 0.5)}), Expr)
