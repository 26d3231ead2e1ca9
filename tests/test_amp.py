"""Mixed-precision training: loss scales, overflows found by others or by the step, and steps that are skipped."""

import math

import numpy as np
import oracle_recipe
import pytest
from cases import LR, ORACLE_LR
from oracle_recipe import Group, Recipe
from recipe_checks import BF16, F16, F32, F64, adamw, adamw_settings, assert_agree, gradient_steps, memory, run, tensors

import gpuadam
from gpuadam import schedules


def pair(**policy):
    params = tensors()
    expected = Recipe(oracle_recipe.adam, [Group(tensors(), adamw_settings(lr=ORACLE_LR))])
    return adamw(params, lr=LR, **policy), params, expected


# ---- where the scalars are read


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_arrays_are_read_where_they_lie_at_each_step(dtype, shape):
    """Bound once; what is written to them afterwards is what the next step sees."""
    optimizer, params, expected = pair()
    scale, found = np.ones(shape, dtype), np.zeros(shape, dtype)
    grads = [np.zeros_like(param) for param in params]
    optimizer.bind(grads, grad_scale=scale, found_inf=found)
    for k, now in enumerate(gradient_steps(8)):
        for grad, values in zip(grads, now, strict=True):
            grad[...] = values
        scale[...], found[...] = 3.0**k, (k in (2, 5)) * 0.5
        expected.step(now, grad_scale=3.0**k, found_inf=float(k in (2, 5)))
        optimizer.step()
        assert_agree(optimizer, params, expected)
    assert optimizer.skipped_steps == 2


@pytest.mark.parametrize("kind", [int, float, np.float32, np.float64])
def test_numbers_hold_until_others_are_given(kind):
    optimizer, params, expected = pair()
    first, second, third = gradient_steps(3)
    optimizer.step(first, grad_scale=kind(8), found_inf=kind(0))
    optimizer.step(second, grad_scale=kind(4), found_inf=kind(1))
    optimizer.step(third)
    for grads, scale, found in ((first, 8.0, 0.0), (second, 4.0, 1.0), (third, 1.0, 0.0)):
        expected.step(grads, grad_scale=scale, found_inf=found)
    assert_agree(optimizer, params, expected)


@pytest.mark.parametrize("found", [True, 1, -1.0, 0.25, math.nan, 5e-324])
def test_anything_but_zero_is_found(found):
    optimizer, params, _ = pair()
    before = memory(optimizer, params)
    if isinstance(found, float) and math.isnan(found):
        optimizer.step(gradient_steps(1)[0], found_inf=np.array(found))
    else:
        optimizer.step(gradient_steps(1)[0], found_inf=found)
    assert memory(optimizer, params) == before
    assert optimizer.skipped_steps == 1


@pytest.mark.parametrize("zero", [0, 0.0, -0.0, False, np.float32(0), np.zeros((), F32), np.array([-0.0])])
def test_zero_is_not_found(zero):
    optimizer, params, expected = pair()
    run(optimizer, params, expected, gradient_steps(2), found_inf=0.0)
    grads = gradient_steps(3)[2]
    optimizer.step(grads, found_inf=zero)
    expected.step(grads)
    assert_agree(optimizer, params, expected)


@pytest.mark.parametrize(
    ("name", "value", "error", "text"),
    [
        ("grad_scale", 0, ValueError, "grad_scale is 0.0; allowed is a finite number > 0"),
        ("grad_scale", -2.0, ValueError, "grad_scale is -2.0"),
        ("grad_scale", math.nan, ValueError, "grad_scale"),
        ("grad_scale", math.inf, ValueError, "grad_scale"),
        ("grad_scale", "8", TypeError, "grad_scale"),
        ("grad_scale", np.ones(2, F32), TypeError, "grad_scale is an array of float32 and shape"),
        ("grad_scale", np.ones(0, F32), TypeError, "grad_scale"),
        ("grad_scale", np.ones(1, np.int32), TypeError, "grad_scale is an array of int32"),
        ("grad_scale", np.ones((), F16), TypeError, "grad_scale is an array of float16"),
        ("found_inf", np.zeros((2,), F32), TypeError, "found_inf is an array of float32 and shape"),
        ("found_inf", np.zeros((), bool), TypeError, "found_inf is an array of bool"),
        ("found_inf", [0.0], TypeError, "found_inf"),
    ],
)  # fmt: skip
def test_scalars_that_are_refused(name, value, error, text):
    optimizer, params, _ = pair()
    before = memory(optimizer, params)
    with pytest.raises(error, match=text):
        optimizer.step(gradient_steps(1)[0], **{name: value})
    assert memory(optimizer, params) == before


def test_a_scale_of_zero_in_an_array_gives_what_division_gives():
    """It is read on the device, where nobody can be told: infinite gradients, whose update is NaN, not a silent one."""
    optimizer, params, _ = pair()
    optimizer.step(gradient_steps(1)[0], grad_scale=np.zeros(1))
    assert all(np.isnan(param).all() for param in params)


# ---- what a skipped step leaves alone


RULES = {
    "adam": (gpuadam.Adam, {"amsgrad": True}),
    "nadam": (gpuadam.NAdam, {}),
    "rmsprop": (gpuadam.RMSprop, {"momentum": 0.9, "centered": True}),
    "sgd": (gpuadam.SGD, {"momentum": 0.9}),
}
SKIPS = {
    "found": ({}, {"found_inf": 1}),
    "not finite": ({"nonfinite": "skip"}, {}),
    "raised": ({"nonfinite": "raise"}, {}),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("skip", SKIPS)
def test_a_skipped_step_changes_nothing_at_all(rule, skip):
    """Parameters, states, averages, counters, the product of NAdam's momenta; the steps after it are as without it."""
    make, options = RULES[rule]
    policy, scalars = SKIPS[skip]
    lr = 0.1 / (1 + schedules.step)
    (params, optimizer), (others, straight) = (
        (own, make(own, lr=lr, ema_decay=0.5, **options, **policy)) for own in (tensors(), tensors())
    )
    grads = gradient_steps(6)
    bad = [grad.copy() for grad in grads[2]]
    if not scalars:
        bad[2][-1] = math.inf
    for k, now in enumerate(grads):
        if k in (0, 2, 3):
            before = memory(optimizer, params)
            if skip == "raised":
                with pytest.raises(FloatingPointError, match=r"gradient of 2 is not finite.*was skipped"):
                    optimizer.step(bad)
            else:
                optimizer.step(bad, **scalars)
            assert memory(optimizer, params) == before
        optimizer.step(now)
        straight.step(now)
    assert memory(optimizer, params) == memory(straight, others)
    assert (optimizer.skipped_steps, straight.skipped_steps) == (3, 0)


@pytest.mark.parametrize("dtype", [F16, BF16, F32, F64])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_element_that_is_not_finite(dtype, value):
    """Wherever it stands, and whatever the format; others' largest values do not count as infinite."""
    sizes = (300, 70_000, 1)
    params = [np.zeros(size, dtype) for size in sizes]
    optimizer = adamw(params, nonfinite="skip", ema_decay=0.5)
    largest = np.finfo(F16).max if dtype == F16 else 1e30
    for tensor, element in ((0, 0), (0, 299), (1, 69_999), (1, 4_096), (2, 0)):
        grads = [np.full(size, largest, dtype) for size in sizes]
        grads[tensor][element] = value
        optimizer.step(grads)
    assert optimizer.skipped_steps == 5
    assert not any(np.any(param) for param in params)
    optimizer.step([np.full(size, largest, dtype) for size in sizes])
    assert optimizer.skipped_steps == 5


def test_propagate_lets_a_nan_reach_its_own_element_only():
    params = tensors()
    optimizer = adamw(params)
    grads = gradient_steps(2)
    grads[0][2][17] = math.nan
    for now in grads:
        optimizer.step(now)
    places = [np.flatnonzero(np.isnan(param)).tolist() for param in params]
    assert places == [[], [], [17], []]
    assert optimizer.skipped_steps == 0


def test_with_a_norm_a_nan_reaches_all_that_it_scales():
    """clip_norm / NaN is NaN, as in torch.nn.utils.clip_grad_norm_."""
    params = tensors()
    optimizer = adamw(params, clip_norm=1.0)
    grads = gradient_steps(1)[0]
    grads[2][17] = math.nan
    optimizer.step(grads)
    assert math.isnan(optimizer.gradient_norms()[0])
    assert all(np.isnan(param).all() for param in params)


def test_the_error_names_all_tensors():
    params = {name: np.zeros(3, F32) for name in "abcdefgh"}
    optimizer = adamw(params, nonfinite="raise")
    with pytest.raises(FloatingPointError, match=r"gradient of 'a', 'c', 'd', 'e', 'f' and 2 more is not finite"):
        optimizer.step({name: np.full(3, 1.0 if name == "b" else math.nan, F32) for name in params})
    optimizer.step({name: np.ones(3, F32) for name in params})


def test_zero_grads_clears_in_every_step_even_a_skipped_one():
    params = tensors()
    optimizer = adamw(params, zero_grads=True, nonfinite="skip")
    expected = Recipe(oracle_recipe.adam, [Group(tensors(), adamw_settings())], skips_nonfinite=True)
    for k, now in enumerate(gradient_steps(4)):
        if k == 2:
            now[3][5] = math.nan
        expected.step(now)
        optimizer.step(now)
        assert not any(np.any(grad) for grad in now)
    assert_agree(optimizer, params, expected)
    grads = gradient_steps(1)[0]
    grads[1].flags.writeable = False
    with pytest.raises(ValueError, match="gradient 1 is read-only, but zero_grads=True"):
        optimizer.step(grads)


def test_skips_are_saved_and_go_on(tmp_path):
    optimizer, _, _ = pair(nonfinite="skip")
    for k, now in enumerate(gradient_steps(5)):
        optimizer.step(now, found_inf=k % 2)
    optimizer.save(tmp_path / "run")
    other = adamw(tensors(), lr=LR, nonfinite="skip")
    other.load(tmp_path / "run")
    other.step(gradient_steps(1)[0], found_inf=1)
    assert (optimizer.skipped_steps, other.skipped_steps) == (2, 3)


def test_a_scale_is_read_where_its_tensor_lies_now():
    torch = pytest.importorskip("torch")
    weight, scale = np.zeros(1, np.float32), torch.full((1,), 2.0)
    optimizer = gpuadam.SGD([weight], lr=1.0)
    optimizer.bind([np.full(1, 8, np.float32)], grad_scale=scale)
    optimizer.step()
    scale.data = torch.full((1,), 4.0)
    optimizer.step()
    assert weight[0] == -4 - 2


def test_a_scale_of_another_byte_order_is_refused():
    optimizer = gpuadam.SGD([np.zeros(1, np.float32)], lr=1.0)
    with pytest.raises(TypeError, match=r"grad_scale is an array of .* byte order of this machine"):
        optimizer.step([np.ones(1, np.float32)], grad_scale=np.full(1, 2, np.dtype(np.float32).newbyteorder()))


def test_a_scale_of_0_in_an_array_overflows():
    """A number is refused at once; an array is read by the step alone, which then divides by nothing."""
    weight = np.ones(3, np.float32)
    optimizer = gpuadam.SGD([weight], lr=0.1, nonfinite="skip")
    optimizer.step([np.ones(3, np.float32)], grad_scale=np.zeros(1, np.float32))
    assert optimizer.skipped_steps == 1
    assert np.array_equal(weight, np.ones(3))
