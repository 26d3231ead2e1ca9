"""LAMB: its formula, and what of the training recipe reaches the norms that are measured."""

import math

import host_backend
import host_kernels
import numpy as np
import oracle
import oracle_lamb
import pytest
from bfloat16 import ml_dtypes
from cases import LR, ORACLE_LR, assert_same_bits, gradients, parameters
from host_backend import optimizer_on
from recipe_checks import deviation

import gpuadam
from gpuadam import cpu, expressions, schedules

OPTIONS = {"eps": 1e-3, "weight_decay": 0.05}

needs_compiler = pytest.mark.skipif(host_kernels.COMPILER is None, reason="g++ is not there to compile the kernels")


# ---- the oracle itself


@pytest.mark.parametrize(("decay", "eps"), [(0.0, 1e-6), (0.3, 1e-6), (0.3, 1e-2)])
def test_the_oracle_against_optax(decay, eps):
    """optax always adapts; its learning rate is a schedule here."""
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    with jax.enable_x64(True):
        params = [jax.numpy.asarray(parameters(n, np.float64)) for n in (7, 12, 30)]
        transform = optax.lamb(lambda count: 0.1 / (count + 1), 0.8, 0.95, eps, weight_decay=decay)
        state, first = transform.init(params), [np.array(param) for param in params]
        series = [gradients(6, param.size, np.float64, seed=i) for i, param in enumerate(first)]
        for now in zip(*series, strict=True):
            updates, state = transform.update([jax.numpy.asarray(grad) for grad in now], state, params)
            params = optax.apply_updates(params, updates)
        theirs = [np.array(param) for param in params]
    for i, param in enumerate(first):
        keys = {"lr": lambda t: 0.1 / (t + 1), "betas": (0.8, 0.95), "eps": eps, "weight_decay": decay}
        np.testing.assert_allclose(oracle_lamb.lamb(param, series[i], **keys).param, theirs[i], rtol=1e-12)
        for fault in ({"bias_correction": False}, {"trust_clip": 0.5}, {"weight_decay": 0.2}, {"maximize": True}):
            wrong = oracle_lamb.lamb(param, series[i], **keys | fault).param
            assert not np.allclose(wrong, theirs[i], rtol=1e-9)  # a ratio hides most of a scale


def torch_lamb(param, grads, *, lr, betas, eps, weight_decay, clip=math.inf, adapts=True):
    """The formula once more, written with PyTorch's own operations."""
    torch = pytest.importorskip("torch")
    weight = torch.tensor(param, dtype=torch.float64)
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for k, grad in enumerate(grads, 1):
        g = torch.tensor(grad, dtype=torch.float64)
        mean.lerp_(g, 1 - betas[0])
        square.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
        update = mean / (1 - betas[0] ** k) / ((square / (1 - betas[1] ** k)).sqrt() + eps) + weight_decay * weight
        if adapts:
            update *= torch.clamp(weight.norm() / update.norm(), max=clip)
        weight -= lr * update
    return weight.numpy()


@pytest.mark.parametrize("fault", [None, {"trust_clip": 0.9}, {"always_adapt": False}])
def test_the_options_of_the_oracle(fault):
    param, grads = parameters(30, np.float64), gradients(6, 30, np.float64)
    keys = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.0}
    options = {"trust_clip": 0.9} if fault is None else fault
    ours = oracle_lamb.lamb(param, grads, **keys, **options).param
    clip = options.get("trust_clip", math.inf)
    theirs = torch_lamb(param, grads, **keys, clip=clip, adapts=options.get("always_adapt", True))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert not np.allclose(torch_lamb(param, grads, **keys), ours, rtol=1e-3)


# ---- the class


def test_schedules_of_all_its_numbers():
    grads, param = gradients(9, 30, np.float64), parameters(30, np.float64)
    optimizer = gpuadam.LAMB(
        [param],
        lr=LR,
        betas=(0.8, 0.95),
        eps=schedules.linear_warmup(1e-2, 10, 1e-4),
        weight_decay=expressions.where(schedules.step < 4, 0.0, 0.3),
        trust_clip=3.0 / (1.0 + schedules.step),
        always_adapt=False,
    )
    expected = oracle_lamb.lamb(
        param.copy(),
        grads,
        lr=ORACLE_LR,
        betas=(0.8, 0.95),
        eps=oracle.linear_warmup(1e-2, 10, 1e-4),
        weight_decay=lambda t: 0.0 if t < 4 else 0.3,
        trust_clip=lambda t: 3.0 / (1.0 + t),
        always_adapt=False,
    )
    for grad in grads:
        optimizer.step([grad])
    assert deviation(param, expected.param) < 1e-13


@pytest.mark.parametrize("zero", ["weights", "gradients"])
def test_the_ratio_is_1_where_a_norm_is_0(zero):
    param = np.zeros(40, np.float64) if zero == "weights" else parameters(40, np.float64)
    grads = np.zeros(40) if zero == "gradients" else gradients(1, 40, np.float64)[0]
    before = param.copy()
    optimizer = gpuadam.LAMB([param], lr=0.1, weight_decay=0.0, eps=1e-3)
    optimizer.step([grads])
    np.testing.assert_allclose(param, before - 0.1 * grads / (np.abs(grads) + 1e-3), rtol=1e-14)


def test_what_is_not_a_number_stays_where_it_is():
    params = [np.ones(3, np.float32), np.ones(3, np.float32)]
    optimizer = gpuadam.LAMB(params, lr=0.1)
    optimizer.step([np.array([1, np.nan, 1], np.float32), np.ones(3, np.float32)])
    assert np.isnan(params[0]).tolist() == [False, True, False]
    np.testing.assert_allclose(params[0][[0, 2]], 1 - 0.1 * 1.01, rtol=1e-5)  # a ratio of 1
    np.testing.assert_allclose(params[1], 0.9, rtol=1e-5)  # a ratio of 1 / 1.01


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_largest_ratio_that_is_none(value):
    with pytest.raises(ValueError, match=r"trust_clip of group 0 is .*; allowed is a number > 0, or a schedule"):
        gpuadam.LAMB([np.ones(1)], trust_clip=value)


def test_a_checkpoint_keeps_that_there_is_no_largest_ratio(tmp_path):
    pytest.importorskip("safetensors")
    param = parameters(40, np.float32)
    optimizer = gpuadam.LAMB([param], lr=0.1)
    optimizer.step([gradients(1, 40, np.float32)[0]])
    optimizer.save(tmp_path / "run")
    other = gpuadam.LAMB([np.zeros_like(param)], lr=0.5, trust_clip=10.0)
    assert [line for line in other.load(tmp_path / "run", hyperparameters=True) if "trust_clip" in line]
    assert other.hyperparameters() == optimizer.hyperparameters()
    assert other.hyperparameters()[0]["trust_clip"] == math.inf


# ---- with the recipe: what is measured is what the step takes


def test_the_gradient_is_unscaled_and_clipped_before_it_is_measured():
    """Each tensor to a norm of 0.1; eps is large enough for the length of the gradient to matter."""
    params = [parameters(n, np.float64, seed=n) for n in (30, 700)]
    series = [gradients(5, n, np.float64, seed=n) for n in (30, 700)]
    clipped = [[0.1 / np.linalg.norm(grad) * grad for grad in own] for own in series]
    expected = [oracle_lamb.lamb(param, own, lr=0.05, **OPTIONS) for param, own in zip(params, clipped, strict=True)]
    optimizer = gpuadam.LAMB(params, lr=0.05, **OPTIONS, clip_norm=0.1, clip_scope="tensor")
    for grads in zip(*series, strict=True):
        optimizer.step([8.0 * grad for grad in grads], grad_scale=8.0)
    for param, own in zip(params, expected, strict=True):
        assert deviation(param, own.param) < 1e-13


def test_the_master_is_measured_and_not_the_weight():
    """With weights that a bfloat16 rounds by up to 1/256, the ratio would be off by far more than float32 is."""
    param = parameters(700, np.float64).astype(ml_dtypes.bfloat16)
    grads = gradients(5, 700, np.float32)
    expected = oracle_lamb.lamb(param, grads, lr=0.05, **OPTIONS)
    optimizer = gpuadam.LAMB([param], lr=0.05, **OPTIONS, master="float32")
    for grad in grads:
        optimizer.step([grad])
    assert deviation(optimizer.state_dict()["state"][0]["master"], expected.param) < 1e-6


@pytest.mark.parametrize("backend", [cpu, pytest.param(host_backend, marks=needs_compiler)])
@pytest.mark.parametrize("kind", ["found_inf", "nonfinite"])
def test_a_skipped_step_changes_nothing(backend, kind, monkeypatch):
    params = [parameters(1500, np.float32), parameters(30, np.float32)]
    optimizer = optimizer_on(backend, monkeypatch, gpuadam.LAMB, params, lr=0.1, nonfinite="skip")
    grads = [gradients(1, param.size, np.float32)[0] for param in params]
    optimizer.step(grads)
    before, state = [param.copy() for param in params], optimizer.state_dict()
    bad = [grads[0], np.full(30, np.inf, np.float32)] if kind == "nonfinite" else grads
    optimizer.step(bad, found_inf=kind == "found_inf")
    assert optimizer.skipped_steps == 1
    for param, old in zip(params, before, strict=True):
        assert_same_bits(param, old)
    optimizer.step(grads, found_inf=0)
    assert optimizer.state_dict()["groups"][0]["updates"] == state["groups"][0]["updates"] + 1
    assert not np.array_equal(params[1], before[1])
