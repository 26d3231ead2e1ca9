"""The oracle of the recipe itself, against PyTorch where it has the same, and against numbers worked out by hand."""

import math

import numpy as np
import oracle
import oracle_momentum
import oracle_recipe
import pytest
from bfloat16 import ml_dtypes
from oracle_recipe import Group, Recipe
from recipe_checks import BF16, F16, F32, F64, adamw_settings, deviation, gradient_steps, tensors

STEPS = 12


@pytest.fixture(scope="module", name="torch")
def fixture_torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def train(rule, settings, grads, **recipe):
    """An oracle after some steps, with one group."""
    own = {name: recipe.pop(name) for name in list(recipe) if name in Group.__dataclass_fields__}
    expected = Recipe(rule, [Group(tensors(F64), settings, **own)], **recipe)
    for now in grads:
        expected.step(now)
    return expected


@pytest.mark.parametrize("decay", ["coupled", "decoupled"])
def test_adam_is_that_of_the_oracle_of_rules(decay):
    settings = {"lr": lambda t: 0.1 / (1 + t), "betas": (0.8, 0.95), "weight_decay": 0.05, "decay": decay}
    grads = gradient_steps(STEPS, F64)
    for i, tensor in enumerate(train(oracle_recipe.adam, settings, grads).tensors):
        whole = oracle.adam(tensors(F64)[i], [now[i] for now in grads], **settings)
        assert deviation(tensor.weight, whole.param) < 1e-13
        assert all(deviation(tensor.states[name], whole.states[name]) < 1e-13 for name in whole.states)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_that_of_the_oracle_of_rules(momentum):
    settings = {"lr": 0.1, "momentum": momentum, "weight_decay": 0.05}
    grads = gradient_steps(STEPS, F64)
    for i, tensor in enumerate(train(oracle_recipe.sgd, settings, grads).tensors):
        whole = oracle_momentum.sgd(tensors(F64)[i], [now[i] for now in grads], **settings)
        assert deviation(tensor.weight, whole.param) < 1e-13


def torch_run(torch, make, grads, before_step, dtype=F64):
    params = [torch.from_numpy(param) for param in tensors(dtype)]
    optimizer = make(params)
    for now in grads:
        for param, grad in zip(params, now, strict=True):
            param.grad = torch.from_numpy(grad.copy())
        before_step(params, optimizer)
        optimizer.step()
    return params


def test_clipping_is_pytorchs_but_for_its_1e_6(torch):
    """torch multiplies by max_norm / (norm + 1e-6), we by max_norm / norm."""
    grads = gradient_steps(STEPS, F64)

    def clip(params, optimizer):
        torch.nn.utils.clip_grad_norm_(params, 2.0)
        torch.nn.utils.clip_grad_value_(params, 0.5)

    theirs = torch_run(torch, lambda params: torch.optim.SGD(params, 0.1, momentum=0.9), grads, clip)
    ours = train(oracle_recipe.sgd, {"lr": 0.1, "momentum": 0.9}, grads, clip_norm=2.0, clip_value=0.5)
    assert min(ours.norms) > 2.0, "it does clip"
    assert max(deviation(a.weight, b.numpy()) for a, b in zip(ours.tensors, theirs, strict=True)) < 1e-6
    without = train(oracle_recipe.sgd, {"lr": 0.1, "momentum": 0.9}, grads)
    assert max(deviation(a.weight, b.numpy()) for a, b in zip(without.tensors, theirs, strict=True)) > 1e-2


def test_the_average_is_pytorchs(torch):
    update = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    grads, averages = gradient_steps(STEPS, F64), []

    def average(params, optimizer):
        """Called ahead of each step: the averages are a step behind."""
        if averages:
            update(averages, [param.detach() for param in params], None)
        else:
            averages.extend(param.detach().clone() for param in params)

    params = torch_run(torch, lambda params: torch.optim.AdamW(params, 0.01, weight_decay=0.1), grads, average)
    average(params, None)
    ours = train(oracle_recipe.adam, adamw_settings(), grads, ema_decay=0.9)
    assert max(deviation(a.average, b.numpy()) for a, b in zip(ours.tensors, averages, strict=True)) < 1e-13


def test_unscaling_and_skipping_are_those_of_pytorchs_scaler(torch):
    params = [torch.from_numpy(param) for param in tensors(F32)]
    optimizer = torch.optim.AdamW(params, 0.01, weight_decay=0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    scaler.scale(torch.zeros(()))  # makes its scale
    expected = Recipe(oracle_recipe.adam, [Group(tensors(F32), adamw_settings())], skips_nonfinite=True)
    for k, now in enumerate(gradient_steps(STEPS, F32)):
        scale = scaler.get_scale()
        scaled = [grad * F32(scale) for grad in now]
        if k in (0, 4, 5):
            scaled[2][3] = math.inf if k else math.nan
        for param, grad in zip(params, scaled, strict=True):
            param.grad = torch.from_numpy(grad.copy())
        scaler.step(optimizer)
        scaler.update()
        expected.step(scaled, grad_scale=scale)
    assert expected.skipped_steps == 3
    assert [tensor.t for tensor in expected.tensors] == [STEPS - 3] * 4
    assert max(deviation(a.weight, b.numpy()) for a, b in zip(expected.tensors, params, strict=True)) < 1e-5


def test_the_warmed_up_decay_by_hand():
    """One weight that becomes 0 in one step of SGD and stays there: the average is the product of the decays."""
    group = Group([np.ones(1)], {"lr": 1.0}, ema_decay=0.3, warms_up=True)
    expected = Recipe(oracle_recipe.sgd, [group])
    for grad in (np.ones(1), *[np.zeros(1)] * 3):
        expected.step([grad])
    assert math.isclose(group.tensors[0].average[0], (2 / 11) * (3 / 12) * 0.3 * 0.3)


def test_scopes_by_hand():
    """Norms 3-4-5: of each tensor, of the groups, of everything."""
    groups = [Group([np.zeros(1), np.zeros(1)], {"lr": 1.0}), Group([np.zeros(1)], {"lr": 1.0})]
    grads = [np.array([3.0]), np.array([-4.0]), np.array([12.0])]
    for scope, norms in (("global", [13.0]), ("group", [5.0, 12.0]), ("tensor", [3.0, 4.0, 12.0])):
        expected = Recipe(oracle_recipe.sgd, groups, clip_scope=scope)
        expected.step(grads)
        assert expected.norms == norms


def test_a_gradient_that_comes_late():
    expected = Recipe(oracle_recipe.sgd, [Group([np.zeros(1), np.zeros(1)], {"lr": lambda t: t})])
    for now in ([None, np.ones(1)], [np.ones(1), None], [None, None], [np.ones(1), np.ones(1)]):
        expected.step(now)
    assert [(tensor.t, tensor.k, tensor.weight[0]) for tensor in expected.tensors] == [(4, 2, -4.0), (4, 2, -3.0)]
    own = Recipe(oracle_recipe.sgd, [Group([np.zeros(1)], {"lr": lambda t: t})], per_tensor_step=True)
    for now in ([None], [np.ones(1)], [np.ones(1)]):
        own.step(now)
    assert (own.tensors[0].t, own.tensors[0].weight[0]) == (2, -1.0)


@pytest.mark.parametrize("dtype", [F16, BF16])
def test_neighbours(dtype):
    """On every value, between each two, and on either side of 0; the distance is the spacing of the format."""
    values = np.arange(0, 0x7800, 7, dtype=np.uint16).view(dtype)
    following = (values.view(np.uint16) + np.uint16(1)).view(dtype).astype(F64)
    values = values.astype(F64)
    for sign in (1.0, -1.0):
        low, high, probability = oracle_recipe.neighbours(sign * (0.75 * values + 0.25 * following), dtype)
        expected = (values, following, 0.25) if sign > 0 else (-following, -values, 0.75)
        assert np.array_equal(low, expected[0])
        assert np.array_equal(high, expected[1])
        assert np.allclose(probability, expected[2], rtol=1e-12)
    low, high, probability = oracle_recipe.neighbours(values, dtype)
    assert np.array_equal(low, values)
    assert np.array_equal(high, values)
    assert not np.any(probability)
    assert np.dtype(ml_dtypes.bfloat16) == BF16
