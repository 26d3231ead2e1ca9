"""The oracle's schedule-free rules, against records of their authors' package, optax, and numbers by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from oracle_schedule_free import adamw_schedule_free, sgd_schedule_free
from test_oracle import POINT, SLOPES, falling

# Recorded in float64 from schedulefree 1.4.1 with PyTorch 2.13: y, and x after eval(). beta1 or momentum 0.8; of AdamW
# beta2 0.75, eps 0.01. Its AdamWScheduleFreeReference, which keeps x, differs from these by less than 1e-15.
WARM = {"warmup_steps": 4, "weight_decay": 0.1}
POWERS = {**WARM, "r": 1.0, "weight_lr_power": 0.5}
ADAMW = [
    ({}, [0.9832240303254653, -1.9904786693253251], [0.9999772784357456, -1.9681930414139583]),
    (WARM, [0.8074485018442142, -2.014872253984431], [0.8241802281152629, -2.007755019119272]),
    (POWERS, [0.7816433072794192, -2.017685419363812], [0.7917031763925948, -2.011343444513918]),
]
SGD = [
    ({}, [0.9883564467939467, -1.974734594109594], [0.9953669305231805, -1.9482561998186996]),
    (WARM, [0.8848927197440555, -2.0417356236190374], [0.8949111733292706, -2.031534920885902]),
    (POWERS, [0.8699770204732988, -2.048219505166977], [0.8761454660974315, -2.0397538227843985]),
]
RUNS = [(adamw_schedule_free, {"betas": (0.8, 0.75), "eps": 0.01, **options}, y, x) for options, y, x in ADAMW]
RUNS += [(sgd_schedule_free, {"momentum": 0.8, **options}, y, x) for options, y, x in SGD]


@pytest.mark.parametrize(("rule", "options", "y", "x"), RUNS)
def test_against_records(rule: Any, options: dict[str, Any], y: list[float], x: list[float]) -> None:
    ours = rule(POINT, SLOPES, lr=falling, **options)
    np.testing.assert_allclose(ours.param, y, rtol=1e-14)
    np.testing.assert_allclose(ours.x, x, rtol=1e-14)
    faults = [{name: 0} for name in options if name not in ("betas", "eps", "momentum")]
    for fault in ({"maximize": True}, *faults):
        assert not np.allclose(rule(POINT, SLOPES, lr=falling, **{**options, **fault}).param, y, rtol=1e-4, atol=0)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("rule", [adamw_schedule_free, sgd_schedule_free])
def test_against_optax_at_a_rate_that_stays(rule: Any, weight_decay: float) -> None:
    """There the two agree; where it changes, optax gives z the rate of a step before."""
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    optax = pytest.importorskip("optax", reason="optax is not installed")
    is_adamw = rule is adamw_schedule_free
    made = optax.contrib.schedule_free_adamw if is_adamw else optax.contrib.schedule_free_sgd
    theirs = {"b1": 0.8, "weight_decay": weight_decay, **({"b2": 0.75, "eps": 0.01} if is_adamw else {})}
    ours = {"betas": (0.8, 0.75), "eps": 0.01} if is_adamw else {"momentum": 0.8}
    with jax.enable_x64(True):
        params = jax.numpy.asarray(POINT)
        optimizer = made(0.1, **theirs)
        state = optimizer.init(params)
        for slope in SLOPES:
            updates, state = optimizer.update(jax.numpy.asarray(slope), state, params)
            params = optax.apply_updates(params, updates)
        x = np.asarray(optax.contrib.schedule_free_eval_params(state, params))
    expected = rule(POINT, SLOPES, lr=0.1, weight_decay=weight_decay, **ours)
    np.testing.assert_allclose(np.asarray(params), expected.param, rtol=1e-13)
    np.testing.assert_allclose(x, expected.x, rtol=1e-13)
    np.testing.assert_allclose(np.asarray(state.z), expected.states["z"], rtol=1e-13)


# Recorded in float64 from Keras 3.15.1 on JAX, lr 0.1; on PyTorch, where the buffer that it means to remember is
# changed in place, it gives other numbers.
KERAS = {0: [0.8582252300255891, -2.133677810811546], 4: [0.8355785665074338, -2.165700852031931]}


@pytest.mark.parametrize("warmup_steps", KERAS)
def test_adamw_against_keras(warmup_steps: int) -> None:
    """Keras weighs all z alike."""
    settings = {"lr": 0.1, "betas": (0.8, 0.75), "eps": 0.01, "warmup_steps": warmup_steps}
    ours = adamw_schedule_free(POINT, SLOPES, **settings, weight_lr_power=0.0)
    np.testing.assert_allclose(ours.param, KERAS[warmup_steps], rtol=1e-14)


def test_by_hand() -> None:
    """Gradients 1, 1 at rate 1 from 0: z is -1, -2, their mean -3/2; y half way between. Warm: z is -1/2, -3/2,
    weighted by 1/4 and 1. A rate of 0 weighs nothing."""
    ones = [np.ones(1)] * 2

    def points(**options: Any) -> tuple[float, ...]:
        found = sgd_schedule_free(np.zeros(1), ones, momentum=0.5, **options)
        return float(found.states["z"][0]), float(found.x[0]), float(found.param[0])

    assert points(lr=1.0) == (-2, -1.5, -1.75)
    assert points(lr=1.0, warmup_steps=2) == (-1.5, -1.3, -1.4)
    assert points(lr=1.0, r=1.0) == pytest.approx((-2, -5 / 3, -11 / 6), rel=1e-15)
    assert points(lr=0.0) == (0, 0, 0)
    adamw = adamw_schedule_free(np.zeros(1), [np.full(1, 2.0)], lr=1.0, betas=(0.5, 0.75), eps=2.0)
    assert (adamw.param[0], adamw.states["exp_avg_sq"][0]) == (-0.5, 1.0)
