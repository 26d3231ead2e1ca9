"""The schedules of optax without a warm-up, computed in double."""

from collections.abc import Sequence

import numpy as np
import pytest

from . import Row

HOME = "optax"
ROWS = [
    Row("constant_schedule(0.1)", "constant(0.1)"),
    Row("linear_schedule(0.1, 0.01, 100)", "linear_decay(0.1, 100, 0.01)"),
    Row("linear_schedule(0.0, 0.1, 50, transition_begin=20)", "linear_decay(0.0, 50, 0.1, transition_begin=20)"),
    Row("polynomial_schedule(0.1, 0.01, 2, 100)", "polynomial_decay(0.1, 100, 0.01, power=2)"),
    Row(
        "polynomial_schedule(0.1, 0.01, 0.5, 50, transition_begin=20)",
        "polynomial_decay(0.1, 50, 0.01, power=0.5, transition_begin=20)",
    ),
    Row(
        "piecewise_constant_schedule(0.1, {30: 0.5, 80: 0.1})",
        "multi_step_decay(0.1, [30, 80], [0.5, 0.1])",
        remark="at a boundary the new value holds, where TensorFlow and Keras still have the old one",
    ),
    Row("exponential_decay(0.1, 20, 0.5)", "exponential_decay(0.1, 20, 0.5)"),
    Row("exponential_decay(0.1, 20, 0.5, staircase=True)", "exponential_decay(0.1, 20, 0.5, staircase=True)"),
    Row(
        "exponential_decay(0.1, 20, 0.5, transition_begin=15, staircase=True, end_value=0.02)",
        "exponential_decay(0.1, 20, 0.5, transition_begin=15, staircase=True, end_value=0.02)",
    ),
    Row(
        "exponential_decay(0.1, 20, 1.5, transition_begin=15, end_value=0.4)",
        "exponential_decay(0.1, 20, 1.5, transition_begin=15, end_value=0.4)",
        remark="with a rate above 1 the end is an upper bound",
    ),
    Row("cosine_decay_schedule(0.1, 100)", "cosine_decay(0.1, 100)"),
    Row(
        "cosine_decay_schedule(0.1, 100, alpha=0.05, exponent=1.5)",
        "cosine_decay(0.1, 100, alpha=0.05, exponent=1.5)",
    ),
    Row(
        "piecewise_interpolate_schedule('linear', 0.1, {20: 2.0, 100: 0.1})",
        "piecewise_interpolate([0, 20, 100], [0.1, 0.2, 0.02])",
        remark="values in place of scales, which are multiplied up",
    ),
    Row(
        "piecewise_interpolate_schedule('cosine', 0.1, {20: 2.0, 50: 0.5, 100: 0.1})",
        "piecewise_interpolate([0, 20, 50, 100], [0.1, 0.2, 0.1, 0.01], shape='cosine')",
    ),
    Row(
        "join_schedules([linear_schedule(0.0, 0.1, 10), cosine_decay_schedule(0.1, 50), constant_schedule(0.01)], "
        "[10, 60])",
        "join([linear_decay(0.0, 10, 0.1), cosine_decay(0.1, 50), 0.01], [10, 60])",
    ),
]


def values(there: str, steps: Sequence[int]) -> np.ndarray:
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)  # else optax computes in float32
    try:
        schedule = eval(there, vars(optax.schedules))
        return np.array([float(schedule(np.int64(k))) for k in steps])
    finally:
        jax.config.update("jax_enable_x64", before)
