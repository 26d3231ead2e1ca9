"""Clipping: norms of every scope, thresholds, what bounds an update, and what is refused."""

import math

import numpy as np
import pytest
from recipe_checks import BF16, F16, F32, F64, adamw, gradient_steps, memory, tensors

import gpuadam
from gpuadam import schedules


def exact_norm(grads):
    """Without rounding: fsum of squares, which are exact in double for 16- and 32-bit gradients."""
    return math.sqrt(math.fsum(float(x) ** 2 for grad in grads for x in grad.astype(F64).ravel()))


def descended(grads, settings, **step):
    """How far SGD at lr 1 moves parameters that are 0: minus the gradient that reaches the rule."""
    params = [np.zeros_like(grad) for grad in grads]
    optimizer = gpuadam.SGD(params, lr=1.0, **settings)
    optimizer.step(grads, **step)
    return optimizer, [-param.astype(F64) for param in params]


@pytest.mark.parametrize("dtype", [F16, BF16, F32, F64])
def test_norms_to_the_last_bits_of_double(dtype):
    """Sizes below, at and beyond chunks and accumulators; each tensor alone and all together."""
    generator = np.random.default_rng(0)
    sizes = [1, 31, 255, 256, 257, 4095, 4096, 4097, 70_001]
    grads = [generator.standard_normal(size).astype(dtype) for size in sizes]
    for scope, expected in (("tensor", [exact_norm([g]) for g in grads]), ("global", [exact_norm(grads)])):
        optimizer, _ = descended(grads, {"clip_norm": 1.0, "clip_scope": scope}, grad_scale=4.0)
        assert np.allclose(np.array(optimizer.gradient_norms()) * 4.0, expected, rtol=1e-14, atol=0)


def test_every_element_counts_in_the_norm():
    """A single 3 among zeros is found wherever it is."""
    size = 9_000
    grad, param = np.zeros(size, F32), np.zeros(size, F32)
    optimizer = gpuadam.SGD([param], lr=0.0, nonfinite="skip")
    optimizer.bind([grad])
    for place in [*range(0, size, 61), 4_095, 4_096, 8_191, 8_192, size - 1]:
        grad[place] = 3.0
        optimizer.step()
        assert optimizer.gradient_norms() == [3.0], place
        grad[place] = 0.0


@pytest.mark.parametrize("scope", ["global", "group", "tensor"])
def test_the_norm_afterwards_is_the_threshold(scope):
    grads = gradient_steps(1)[0]
    params = [np.zeros_like(grad) for grad in grads]
    members = [{"params": params[:1]}, {"params": params[1:3]}, {"params": params[3:]}]
    optimizer = gpuadam.SGD(members, lr=1.0, clip_norm=1e-3, clip_scope=scope)
    optimizer.step(grads)
    ends = {"global": [0, 4], "group": [0, 1, 3, 4], "tensor": [0, 1, 2, 3, 4]}[scope]
    for begin, end, norm in zip(ends, ends[1:], optimizer.gradient_norms(), strict=False):
        assert math.isclose(exact_norm(params[begin:end]), 1e-3, rel_tol=1e-6)
        assert math.isclose(exact_norm(grads[begin:end]), norm, rel_tol=1e-14)


def test_a_norm_below_the_threshold_changes_no_bit():
    grads = gradient_steps(1)[0]
    norm = exact_norm(grads)
    for threshold in (norm * 1.0001, 1e30):
        _, reached = descended(grads, {"clip_norm": threshold})
        assert all(np.array_equal(a, b) for a, b in zip(reached, grads, strict=True))
    _, reached = descended(grads, {"clip_norm": norm * 0.99})
    assert not np.array_equal(reached[2], grads[2])


def test_one_factor_is_rounded_once():
    """1/scale and threshold/norm are one number in double; the product is rounded to float32 with it."""
    grads = [np.array([3.0, -4.0, 0.0], F32)]
    _, reached = descended(grads, {"clip_norm": 0.7}, grad_scale=3.0)
    factor = F32((1.0 / 3.0) * (0.7 / (5.0 / 3.0)))
    assert np.allclose(reached[0], grads[0].astype(F64) * factor, rtol=2e-7)


def test_values_are_clamped_after_the_norm():
    grads = [np.array([3.0, -4.0, 12.0], F32)]
    _, reached = descended(grads, {"clip_norm": 6.5, "clip_value": 1.75})
    assert np.array_equal(reached[0], [1.5, -1.75, 1.75])
    _, before = descended([np.clip(grads[0], -1.75, 1.75)], {"clip_norm": 6.5})
    assert not np.array_equal(before[0], reached[0]), "the other order is another thing"


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_clamping_bounds_infinity_and_leaves_nan(value):
    _, reached = descended([np.array([1.0, value], F32)], {"clip_value": 2.0})
    assert np.array_equal(reached[0], [1.0, np.clip(value, -2.0, 2.0)], equal_nan=True)


def test_maximize_ascends_along_the_clipped_gradient():
    param = np.zeros(2, F32)
    gpuadam.Adam([param], lr=1.0, maximize=True, clip_norm=1.0).step([np.array([3.0, -4.0], F32)])
    assert np.all(np.sign(param) == [1, -1])
    param = np.zeros(2, F32)
    gpuadam.SGD([param], lr=1.0, maximize=True, clip_value=1.0).step([np.array([3.0, -0.5], F32)])
    assert np.array_equal(param, [1.0, -0.5])


def test_large_gradients_of_float32_do_not_overflow_the_norm():
    """Their squares do in float32 (reported of fused norms elsewhere); here 3e38 is clipped like any other."""
    optimizer, reached = descended([np.full(4, 3e38, F32)], {"clip_norm": 2.0, "nonfinite": "skip"})
    assert optimizer.skipped_steps == 0
    assert np.allclose(reached[0], 1.0)
    _, reached = descended([np.full(4, 1e-45, F32)], {"clip_norm": 1e-45})
    assert np.all(np.isfinite(reached[0]))


def test_a_gradient_of_zero_stays_zero():
    optimizer, reached = descended([np.zeros(5, F32), np.zeros(0, F32)], {"clip_norm": 1.0, "clip_value": 1.0})
    assert optimizer.gradient_norms() == [0.0]
    assert np.array_equal(reached[0], np.zeros(5))


def test_tensors_without_gradient_do_not_count():
    params = tensors()
    optimizer = adamw(params, clip_norm=1.0, clip_scope="tensor")
    grads = gradient_steps(1)[0]
    optimizer.step([grads[0], None, grads[2], None])
    assert np.allclose(optimizer.gradient_norms(), [exact_norm(grads[:1]), 0, exact_norm(grads[2:3]), 0], rtol=1e-14)


def test_gradient_norms_need_somebody_who_sums():
    with pytest.raises(ValueError, match="norms are summed only with clip_norm, or with nonfinite"):
        adamw(tensors()).gradient_norms()


def test_thresholds_are_changed_in_place():
    param, grad = np.zeros(2, F32), np.array([3.0, -4.0], F32)
    optimizer = gpuadam.SGD([param], lr=1.0, clip_norm=1.0, clip_value=10.0)
    optimizer.bind([grad])
    moved = []
    for settings in ({}, {"clip_norm": 2.5}, {"clip_value": 1.75}, {"clip_norm": 5.0 / (1 + schedules.step)}):
        optimizer.set_hyperparameters(**settings)
        before = param.copy()
        optimizer.step()
        moved.append((before - param).tolist())
    expected = [[0.6, -0.8], [1.5, -2.0], [1.5, -1.75], [0.75, -1.0]]
    assert np.allclose(moved, expected, rtol=1e-6)
    for settings in ({"clip_norm": None}, {"ema_decay": 0.5}):
        with pytest.raises(ValueError, match="not begun or ended"):
            optimizer.set_hyperparameters(**settings)


@pytest.mark.parametrize("name", ["clip_norm", "clip_value"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "1", True])
def test_thresholds_that_are_refused(name, value):
    with pytest.raises((TypeError, ValueError), match=name):
        adamw(tensors(), **{name: value})


@pytest.mark.parametrize("name", ["clip_norm", "clip_value"])
def test_a_schedule_that_leaves_the_range_holds_the_step(name):
    params = tensors()
    optimizer = adamw(params, **{name: 2.0 - schedules.step})
    grads = gradient_steps(3)
    optimizer.step(grads[0])
    optimizer.step(grads[1])
    before = memory(optimizer, params)
    with pytest.raises(gpuadam.ScheduleError, match=f"{name} of group 0 would be 0.0 at step 2"):
        optimizer.step(grads[2])
    assert memory(optimizer, params) == before


def test_a_scope_that_does_not_exist():
    with pytest.raises(ValueError, match="clip_scope is 'layer'; allowed are"):
        adamw(tensors(), clip_norm=1.0, clip_scope="layer")
