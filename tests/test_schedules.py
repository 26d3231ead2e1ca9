"""Schedules against the oracle, against PyTorch, against 50 digits; what they refuse; their doctests."""

import doctest
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuadam import expressions, schedules
from gpuadam.expressions import Expr

Values = npt.NDArray[np.float64]
FAR = [10**6, 10**9 - 1, 10**9, 10**9 + 1, 2**53]
SHORT = [*range(400), *FAR]
LONG = [*range(50), *range(49_950, 50_050), *range(99_900, 100_100), *FAR]


def assert_close(ours: Any, theirs: Any, scale: float = 0.0) -> None:
    """Within 6 ulp, and 4 ulp of the scale where the formula itself subtracts numbers of that size."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    np.testing.assert_array_less(np.abs(ours - theirs), 6 * np.spacing(theirs) + 4 * np.spacing(scale))


def values(schedule: oracle.Schedule, steps: list[int]) -> Values:
    return np.array([schedule(t) for t in steps])


# name: ours, the oracle's, steps, scale
CASES: dict[str, tuple[Expr, oracle.Schedule, list[int], float]] = {
    "piecewise left": (
        schedules.piecewise_constant([3, 10, 200], [0.3, 0.2, 0.7, 0.0]),
        oracle.piecewise_constant([3, 10, 200], [0.3, 0.2, 0.7, 0.0]), SHORT, 0),
    "piecewise right": (
        schedules.piecewise_constant([0, 10.5, 200], [9, 0.2, 0.7, 0.1], boundary="right"),
        oracle.piecewise_constant([0, 10.5, 200], [9, 0.2, 0.7, 0.1], right=True), SHORT, 0),
    "exponential": (
        schedules.exponential_decay(0.1, 100, 0.96), oracle.exponential_decay(0.1, 100, 0.96), [*SHORT, 31_700], 0),
    "exponential staircase": (
        schedules.exponential_decay(0.1, 49, 0.5, staircase=True),
        oracle.exponential_decay(0.1, 49, 0.5, staircase=True), [*range(1000), 49 * 10**3 - 1, 49 * 10**3, *FAR], 0),
    "exponential down to": (
        schedules.exponential_decay(0.1, 10, 0.9, end_value=0.01),
        lambda t: max(oracle.exponential_decay(0.1, 10, 0.9)(t), 0.01), SHORT, 0),
    "exponential up to": (
        schedules.exponential_decay(1e-7, 300, 10 / 1e-7, end_value=10),
        lambda t: min(oracle.exponential_decay(1e-7, 300, 10 / 1e-7)(min(t, 400)), 10), SHORT, 0),
    "polynomial": (schedules.polynomial_decay(0.1, 300), oracle.polynomial_decay(0.1, 300), SHORT, 0),
    "polynomial 2.5": (
        schedules.polynomial_decay(0.1, 300, 0.2, 2.5), oracle.polynomial_decay(0.1, 300, 0.2, 2.5), SHORT, 0.1),
    "polynomial cycle": (
        schedules.polynomial_decay(0.1, 37, 0.01, 0.5, cycle=True),
        oracle.polynomial_decay(0.1, 37, 0.01, 0.5, cycle=True), SHORT, 0),
    "cosine": (schedules.cosine_decay(0.1, 100_000), oracle.cosine_decay(0.1, 100_000), LONG, 0),
    "cosine alpha": (schedules.cosine_decay(0.1, 300, 0.05), oracle.cosine_decay(0.1, 300, 0.05), SHORT, 0),
    "warm-up": (schedules.linear_warmup(0.1, 300), oracle.linear_warmup(0.1, 300), SHORT, 0),
    "warm-up from": (schedules.linear_warmup(0.1, 300, 0.2), oracle.linear_warmup(0.1, 300, 0.2), SHORT, 0),
    "warm-up 1-based": (
        schedules.linear_warmup(0.1, 300, first=1), lambda t: oracle.linear_warmup(0.1, 300)(t + 1), SHORT, 0),
    "warm-up cosine": (
        schedules.warmup_cosine_decay(0.01, 0.3, 50, 100_000, 1e-5),
        oracle.warmup_cosine_decay(0.01, 0.3, 50, 100_000, 1e-5), LONG, 0),
    "no warm-up cosine": (
        schedules.warmup_cosine_decay(0.0, 0.3, 0, 300), oracle.warmup_cosine_decay(0.0, 0.3, 0, 300), SHORT, 0),
    "cyclic": (schedules.cyclic(0.0, 0.1, 50), oracle.cyclic(0.0, 0.1, 50), SHORT, 0),
    "cyclic 2": (
        schedules.cyclic(0.01, 0.1, 4, mode="triangular2"), oracle.cyclic(0.01, 0.1, 4, "triangular2"), SHORT, 0),
    "cyclic exp": (
        schedules.cyclic(0.0, 0.1, 40, mode="exp_range", gamma=0.999),
        oracle.cyclic(0.0, 0.1, 40, "exp_range", 0.999), SHORT, 0),
    "cyclic momentum": (
        schedules.cyclic(0.95, 0.85, 40, step_size_down=7), oracle.cyclic(0.95, 0.85, 40, step_size_down=7), SHORT, 0),
    "cyclic fractional": (schedules.cyclic(0.01, 0.1, 4.3), oracle.cyclic(0.01, 0.1, 4.3), [*range(400)], 1),
    "restarts": (schedules.cosine_decay_restarts(0.1, 10), oracle.cosine_decay_restarts(0.1, 10), SHORT, 0.1),
    "restarts 3": (
        schedules.cosine_decay_restarts(0.1, 10, 3.0, 0.7, 0.01),
        oracle.cosine_decay_restarts(0.1, 10, 3.0, 0.7, 0.01), SHORT, 0.1),
    "restarts 1.5": (
        schedules.cosine_decay_restarts(0.1, 7, 1.5), oracle.cosine_decay_restarts(0.1, 7, 1.5), SHORT, 0.1),
    "restarts 1": (
        schedules.cosine_decay_restarts(0.1, 49, 1, 0.9),
        oracle.cosine_decay_restarts(0.1, 49, 1, 0.9), SHORT[:-4], 0.1),
    "join": (
        schedules.join(
            [schedules.linear_warmup(0.1, 10), schedules.cosine_decay(0.1, 90), 0.05, schedules.cyclic(0.01, 0.1, 7)],
            [10, 100, 150]),
        oracle.join(
            [oracle.linear_warmup(0.1, 10), oracle.cosine_decay(0.1, 90), oracle.constant(0.05),
             oracle.cyclic(0.01, 0.1, 7)], [10, 100, 150]), SHORT, 0),
}  # fmt: skip
for anneal, three, pct in itertools.product(("cosine", "linear"), (False, True), (0.0, 0.001, 0.17, 0.3, 0.5)):
    keys: dict[str, Any] = {"pct_start": pct, "three_phase": three}
    CASES[f"one cycle {anneal} {three} {pct}"] = (
        schedules.one_cycle(0.2, 350, anneal=anneal, **keys),
        oracle.one_cycle(0.2, 350, anneal=anneal[:6].replace("cosine", "cos"), **keys), SHORT, 0)  # fmt: skip
    CASES[f"one cycle momentum {anneal} {three} {pct}"] = (
        schedules.one_cycle_momentum(350, anneal=anneal, **keys),
        oracle.one_cycle_momentum(350, anneal=anneal[:6].replace("cosine", "cos"), **keys), SHORT, 0)  # fmt: skip

if __name__ == "__main__":
    for name, (ours, theirs, steps, scale) in CASES.items():
        a, b = ours(steps), values(theirs, steps)
        d = np.abs(a - b) / np.spacing(b)
        i = d.argmax()
        print(f"{name:40} ulp {d.max():12.4g} at {steps[i]} abs {np.abs(a-b).max():.3g} zeroref {np.sum((b==0)&(a!=0))}")
