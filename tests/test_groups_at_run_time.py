"""Tensors with rates of their own, tensors that rest, and groups that join a run."""

import math

import numpy as np
import oracle_recipe
import pytest
from cases import LR, ORACLE_LR
from oracle_recipe import Group, Recipe
from recipe_checks import F16, F32, F64, adamw, adamw_settings, assert_agree, gradient_steps, memory, run, tensors

import gpuadam
from gpuadam import ema_warmup, schedules

STEPS = 8
SCALES = [0.5, 1.0, 2.0, 1e-3]


# ---- factors of the learning rate


@pytest.mark.parametrize("form", ["list", "dict", "number"])
def test_a_factor_for_each_tensor(form):
    """It multiplies lr, a schedule too, and with it the decoupled decay."""
    names = ["a", "b", "c", "d"]
    params = tensors()
    given, scales = {
        "list": (SCALES, SCALES),
        "dict": ({"a": 0.5, "d": 1e-3}, [0.5, 1.0, 1.0, 1e-3]),
        "number": (3, [3.0] * 4),
    }[form]
    optimizer = adamw(dict(zip(names, params, strict=True)), lr=LR, lr_scale=given)
    group = Group(tensors(), adamw_settings(lr=ORACLE_LR), lr_scale=scales)
    expected = Recipe(oracle_recipe.adam, [group])
    for now in gradient_steps(STEPS):
        expected.step(now)
        optimizer.step(dict(zip(names, now, strict=True)))
    assert_agree(optimizer, params, expected)


def test_factors_stay_with_their_tensors_while_some_rest():
    """Layers of falling rates, gradients that come and go, a state that is loaded in the middle."""
    params = tensors()
    optimizer = adamw(params, lr=LR, lr_scale=SCALES)
    expected = Recipe(oracle_recipe.adam, [Group(tensors(), adamw_settings(lr=ORACLE_LR), lr_scale=SCALES)])
    for k, now in enumerate(gradient_steps(12)):
        grads = [None if (i + k) % 4 == 0 else grad for i, grad in enumerate(now)]
        expected.step(grads)
        optimizer.step(grads)
        if k == 6:
            optimizer.load_state_dict(optimizer.state_dict())
        if k == 8:
            optimizer.set_hyperparameters(weight_decay=0.1)
    assert_agree(optimizer, params, expected)


def test_groups_have_factors_of_their_own():
    params, own = tensors(), tensors()
    optimizer = adamw([{"params": params[:2], "lr_scale": [1.0, 0.1]}, {"params": params[2:], "lr": 0.5}], lr_scale=2.0)
    groups = [
        Group(own[:2], adamw_settings(), lr_scale=[1.0, 0.1]),
        Group(own[2:], adamw_settings(lr=0.5), lr_scale=2.0),
    ]
    expected = Recipe(oracle_recipe.adam, groups)
    run(optimizer, params, expected, gradient_steps(STEPS))
    assert_agree(optimizer, params, expected)


BAD_SCALES = [
    (0.0, "lr_scale of group 0 is 0.0"),
    (-1.0, "lr_scale of group 0 is -1.0"),
    (math.nan, "lr_scale of group 0"),
    ([1.0, 1.0], "lr_scale of group 0 has 2 entries for 4 tensors"),
    ([1.0, 1.0, 0, 1.0], "lr_scale of group 0 for 2 is 0"),
    ({"x": 1.0}, "lr_scale of group 0 names 'x', which is none of its tensors"),
    ({1: "2"}, "lr_scale of group 0 for 1"),
    (1.0 / (1 + schedules.step), "lr_scale of group 0"),
]


@pytest.mark.parametrize(("scale", "text"), BAD_SCALES)
def test_factors_that_are_refused(scale, text):
    with pytest.raises((TypeError, ValueError), match=text):
        adamw(tensors(), lr_scale=scale)


# ---- tensors that are frozen


@pytest.mark.parametrize("per_tensor_step", [False, True])
def test_freezing_and_thawing(per_tensor_step):
    """A frozen tensor keeps its bits, states and average; its clock goes on, or stands too."""
    params = tensors()
    recipe = {"ema_decay": ema_warmup(0.9), "clip_norm": 3.0, "per_tensor_step": per_tensor_step}
    optimizer = adamw(params, lr=LR, **recipe)
    group = Group(tensors(), adamw_settings(lr=ORACLE_LR), clip_norm=3.0, ema_decay=0.9, warms_up=True)
    expected = Recipe(oracle_recipe.adam, [group], per_tensor_step=per_tensor_step)
    frozen = {0: range(5), 2: range(3, 9), 3: range(2, 4)}
    for k, now in enumerate(gradient_steps(12)):
        grads = [None if k in frozen.get(i, ()) else grad for i, grad in enumerate(now)]
        before = memory(optimizer, params)
        expected.step(grads)
        optimizer.step(grads)
        after = memory(optimizer, params)
        for i, grad in enumerate(grads):
            if grad is None:
                ticks = 0 if per_tensor_step else 1
                assert after[0][i] == before[0][i]
                assert after[1][i] == {**before[1][i], "step": before[1][i]["step"] + ticks}
        assert_agree(optimizer, params, expected)


# ---- groups that join


def test_a_group_that_joins_begins_anew_and_the_others_go_on():
    params, own = tensors(), tensors()
    recipe = {"clip_norm": 1.0, "ema_decay": 0.9}
    optimizer = adamw(params[:2], lr=LR, lr_scale=[1.0, 0.5], nonfinite="skip", clip_scope="group", **recipe)
    first = Group(own[:2], adamw_settings(lr=ORACLE_LR), lr_scale=[1.0, 0.5], **recipe)
    expected = Recipe(oracle_recipe.adam, [first], clip_scope="group", skips_nonfinite=True)
    grads = gradient_steps(12)
    for k, now in enumerate(grads[:5]):
        early = [now[0], now[1] if k % 2 else None]
        optimizer.step(early, found_inf=k == 3)
        expected.step(early, found_inf=k == 3)
    optimizer.add_group({"params": params[2:3], "lr": 0.02, "clip_norm": 0.5, "lr_scale": 1.0})
    expected.add_group(Group(own[2:3], adamw_settings(lr=0.02), clip_norm=0.5, ema_decay=0.9))
    for now in grads[5:8]:
        optimizer.step(now[:3])
        expected.step(now[:3])
    optimizer.add_group({"params": params[3:], "lr_scale": 1.0})
    expected.add_group(Group(own[3:], adamw_settings(lr=ORACLE_LR), **recipe))
    for now in grads[8:]:
        optimizer.step(now)
        expected.step(now)
    assert_agree(optimizer, params, expected)
    assert np.allclose(optimizer.gradient_norms(), expected.norms, rtol=1e-12)
    assert [tensor.t for tensor in expected.tensors] == [11, 11, 7, 4]


@pytest.mark.parametrize("form", ["list", "dict", "group"])
def test_what_a_group_may_be_given_as(form):
    params = {"a": np.ones(3, F32)}
    optimizer = gpuadam.SGD(params, lr=1.0)
    new = np.ones(3, F32)
    group = {"list": [new], "dict": {"b": new}, "group": {"params": {"b": new}, "lr": 2.0}}[form]
    optimizer.add_group(group)
    name = 1 if form == "list" else "b"
    optimizer.step({"a": np.ones(3, F32), name: np.ones(3, F32)})
    assert np.all(params["a"] == 0)
    assert np.all(new == (-1 if form == "group" else 0))


def test_changed_settings_and_parameters_stay():
    """Set before a group joins, they are what the old groups go on with; the new one has the constructor's."""
    peak = schedules.parameter("peak", 0.5)
    params = [np.zeros(1, F64) for _ in range(3)]
    optimizer = gpuadam.SGD([{"params": params[:1], "lr": peak}, {"params": params[1:2]}], lr=0.25)
    optimizer.set_parameter("peak", 2.0)
    optimizer.set_hyperparameters(1, lr=4.0)
    optimizer.add_group([params[2]])
    assert optimizer.parameters() == {"peak": 2.0}
    optimizer.step([np.ones(1) for _ in range(3)])
    assert [float(param[0]) for param in params] == [-2.0, -4.0, -0.25]
    optimizer.set_parameter("peak", 1.0)
    optimizer.step([np.ones(1) for _ in range(3)])
    assert [float(param[0]) for param in params] == [-3.0, -8.0, -0.5]


def test_gradients_must_be_bound_again():
    params = tensors()
    optimizer = adamw(params[:3])
    optimizer.step(gradient_steps(1)[0][:3])
    optimizer.add_group(params[3:])
    with pytest.raises(ValueError, match="there are no gradients"):
        optimizer.step()
    with pytest.raises(ValueError, match="got 3 gradients for 4 parameters"):
        optimizer.step(gradient_steps(1)[0][:3])
    optimizer.step(gradient_steps(1)[0])


def test_a_run_with_a_group_that_joined_goes_on_from_a_file(tmp_path):
    def start():
        params = tensors()
        optimizer = adamw(params[:2], ema_decay=0.5)
        optimizer.step(gradient_steps(1)[0][:2])
        optimizer.add_group({"params": params[2:], "lr": 0.1})
        return params, optimizer

    (params, optimizer), (others, other) = start(), start()
    for now in gradient_steps(3):
        optimizer.step(now)
    optimizer.save(tmp_path / "run")
    other.load(tmp_path / "run")
    for now in gradient_steps(3):
        optimizer.step(now)
        other.step(now)
    assert memory(other, others) == memory(optimizer, params)


REFUSED = {
    "a name that is there": (lambda own: {0: np.ones(3, F32)}, ValueError, "parameter 0 is in group 0 and in group 1"),
    "whole numbers": (lambda own: [np.ones(3, int)], TypeError, "parameter 1 has dtype int64; allowed are"),
    "read-only": (lambda own: [np.broadcast_to(F32(1), 1)], ValueError, "parameter 1 is read-only"),
    "an overlap": (lambda own: [own[2:4]], ValueError, "parameter 1 shares memory with parameter 0"),
    "an unknown setting": (
        lambda own: {"params": [np.ones(1, F32)], "speed": 1}, ValueError, "group 1 has the unknown setting 'speed'"
    ),
    "a rate that is negative": (lambda own: {"params": [np.ones(1, F32)], "lr": -1.0}, ValueError, "lr of group 1"),
    "a rate that leaves its range at once": (
        lambda own: {"params": [np.ones(1, F32)], "lr": schedules.step - 1.0}, ValueError, "lr of group 1 would be -1.0"
    ),
    "a remainder of float16": (
        lambda own: {"params": [np.ones(1, F16)], "master": "remainder"}, ValueError, "master of group 1 is 'remainder'"
    ),
    "no tensors": (lambda own: {"params": None}, ValueError, "group 1 has no entry 'params'"),
    "two groups": (lambda own: [{"params": [np.ones(1, F32)]}] * 2, TypeError, "parameter|params"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_groups_that_are_refused_change_nothing(what):
    """The run goes on with the gradients that are bound, bit for bit as if nobody had asked."""
    make, error, text = REFUSED[what]
    (param, optimizer), (other, straight) = ((own, adamw([own], ema_decay=0.5)) for own in (tensors()[2], tensors()[2]))
    grad = gradient_steps(1)[0][2]
    optimizer.step([grad])
    straight.step([grad])
    with pytest.raises(error, match=text):
        optimizer.add_group(make(param))
    optimizer.step()
    straight.step()
    assert memory(optimizer, [param]) == memory(straight, [other])


def test_an_optimizer_without_tensors_takes_its_first():
    optimizer = gpuadam.SGD([], lr=1.0 / (1 + schedules.step))
    optimizer.step([])
    param = np.zeros(2)
    optimizer.add_group([param])
    optimizer.step([np.ones(2)])
    assert np.all(param == -1.0), "its clock begins at 0"
