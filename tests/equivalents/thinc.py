"""The schedules of thinc.schedules; step there is step here, though two of them add 1 to it."""

from collections.abc import Sequence

import numpy as np
import pytest

from . import Row

HOME = "thinc"
ROWS = [
    Row("constant(0.1)", "constant(0.1)"),
    Row(
        "constant_then(0.1, 10, decaying(0.2, 1e-2))",
        "where(step < 10, 0.1, inverse_time_decay(0.2, 1, 1e-2))",
        remark="the second schedule is not at its own step 0; with `join` it would be",
    ),
    Row("decaying(0.1, 1e-2)", "inverse_time_decay(0.1, 1, 1e-2)", range(400)),
    Row("decaying(0.1, 1e-2, t=5.0)", "shift(inverse_time_decay(0.1, 1, 1e-2), -5)", range(400)),
    Row("compounding(1.0, 32.0, 1.05)", "exponential_decay(1.0, 1, 1.05, end_value=32.0)", range(400)),
    Row(
        "compounding(0.1, 0.001, 0.95)",
        "exponential_decay(0.1, 1, 0.95, end_value=0.001)",
        range(400),
    ),
    Row(
        "compounding(0.1, 0.001, 0.95, t=5.0)",
        "shift(exponential_decay(0.1, 1, 0.95, end_value=0.001), -5)",
        range(400),
    ),
    Row("warmup_linear(0.1, 10, 100)", "warmup_linear_decay(0.0, 0.1, 10, 100)"),
    Row("warmup_linear(0.1, 0, 100)", "warmup_linear_decay(0.0, 0.1, 0, 100)"),
    Row(
        "slanted_triangular(0.1, 100)",
        "slanted_triangular(0.1, 100, first=1)",
        range(100),
        "equal up to the end, `step + 1 == total_steps`; past it the line there goes on, below 0 from step 102",
    ),
    Row(
        "slanted_triangular(0.1, 105, cut_frac=0.25, ratio=8)",
        "slanted_triangular(0.1, 105, 0.25, 8, first=1)",
        range(104),
        "equal up to `step + 1 == 26 / 0.25`: the steps up are rounded down to 26",
    ),
    Row(
        "slanted_triangular(0.1, 100, t=5.0)",
        "shift(slanted_triangular(0.1, 100, first=1), -5)",
        range(95),
    ),
    Row(
        "cyclic_triangular(0.01, 0.1, 8)",
        "shift(cyclic(0.01, 0.1, 8), -1)",
        range(400),
        "there the first update is one step up already",
    ),
]


def values(there: str, steps: Sequence[int]) -> np.ndarray:
    schedules = pytest.importorskip("thinc.schedules")
    schedule = eval(there, vars(schedules))
    return np.array([float(schedule(k)) for k in steps])
