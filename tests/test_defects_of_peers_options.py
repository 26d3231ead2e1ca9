"""Defects that were found in other optimizers, each as a test of ours: options without effect, or without their whole
effect, and formats that lose what they hold.
"""

import inspect

import numpy as np
import pytest
from recipe_checks import BF16, F16, F32, F64, deviation

import gpuadam
from gpuadam import schedules

CLASSES = [
    kind
    for name in gpuadam.__all__
    if isinstance(kind := getattr(gpuadam, name), type)
    and issubclass(kind, gpuadam.Optimizer)
    and kind is not gpuadam.Optimizer
]
LR = 0.1 / (1 + schedules.step)
BASE = {"lr": LR, "weight_decay": 0.1, "eps": 1e-2, "momentum": 0.9}  # where options that need others have them
CHANGED = {  # other values than the defaults; of a list the first that is one
    "lr": 0.05,
    "betas": (0.5, 0.6),
    "rho": 0.5,
    "alpha": 0.5,
    "nus": (0.7, 0.9),
    "eps": 2e-2,
    "weight_decay": 0.2,
    "momentum": 0.5,
    "dampening": 0.5,
    "nesterov": True,
    "amsgrad": True,
    "centered": True,
    "maximize": True,
    "bias_correction": [True, False],
    "trust_clip": 1e-3,
    "always_adapt": False,
    "initial_accumulator_value": 0.5,
    "initial_square_avg": 0.5,
    "lr_decay": 0.5,
    "l1_decay": 0.1,
    "threshold": 7.0,
    "momentum_decay": 0.5,
    "momentum_schedule": "constant",
    "decoupled_weight_decay": True,
    "decouple_weight_decay": True,
    "warmup_steps": 5,
    "r": 0.5,
    "weight_lr_power": 1.0,
    "decay": ["coupled", "decoupled"],
    "eps_placement": ["inside", "outside"],
    "lr_placement": "inside",
}
WITH = {
    "always_adapt": {"weight_decay": 0.0},  # the only tensors that it is about
    "weight_lr_power": {"lr": 0.1, "warmup_steps": 5},  # it weighs the largest rate so far, which must grow
}


def arguments(kind):
    """The names and defaults of what an optimizer takes by name."""
    found = inspect.signature(kind).parameters
    own = {name: argument.default for name, argument in found.items() if name not in ("params", "recipe", "keywords")}
    if "keywords" in found:  # it hands on what its base class takes, but not that its decay is decoupled: it always is
        inherited = arguments(kind.__mro__[1])
        return {name: inherited[name] for name in inherited if name != "decoupled_weight_decay"} | own
    return own


def trained(kind, **settings):
    """Weights after gradients that get smaller (amsgrad remembers the larger) and cross the weights' signs."""
    rng = np.random.default_rng(0)
    param = rng.normal(size=(4, 5))
    optimizer = kind([param], **settings)
    for k in range(12):
        optimizer.step([rng.normal(size=(4, 5)) / (1 + k)])
    return param


def options():
    return [pytest.param(kind, name, id=f"{kind.__name__}-{name}") for kind in CLASSES for name in arguments(kind)]


@pytest.mark.parametrize(("kind", "name"), options())
def test_no_option_is_accepted_and_ignored(kind, name):
    """bitsandbytes' RMSprop does not read its momentum, nor any of its optimizers amsgrad (bitsandbytes#1261)."""
    own = arguments(kind)
    base = {given: value for given, value in BASE.items() if given in own} | WITH.get(name, {})
    changed = CHANGED[name]
    other = next(value for value in changed if value != own[name]) if isinstance(changed, list) else changed
    assert not np.allclose(trained(kind, **base), trained(kind, **{**base, name: other}), rtol=1e-9, atol=0)


@pytest.mark.parametrize("state_dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("kind", [gpuadam.RMSprop, gpuadam.Adagrad], ids=lambda kind: kind.__name__)
def test_decay_and_scale_reach_state_and_update_alike(kind, state_dtype):
    """In bitsandbytes' 8-bit RMSprop and Adagrad the state has them, and the update the gradient as it came."""
    rng = np.random.default_rng(1)
    start, grad = (rng.normal(size=(64, 64)).astype(F32) for _ in range(2))
    found = []
    for given, scale, decay in ((grad, None, 0.5), (8 * grad, 8.0, 0.5), (grad + F32(0.5) * start, None, 0.0)):
        param = start.copy()
        optimizer = kind([param], lr=0.1, eps=1e-3, weight_decay=decay, state_dtype=state_dtype)
        optimizer.step([given], grad_scale=scale)
        found.append(param)
    assert deviation(found[0], start) > 0.1
    assert np.array_equal(found[0], found[1])
    assert deviation(found[0], found[2]) < 1e-6


@pytest.mark.parametrize("kind", [gpuadam.AdamW, gpuadam.NadamW, gpuadam.SGDW, gpuadam.Lion], ids=lambda k: k.__name__)
def test_decoupled_decay_comes_before_the_update(kind):
    """bitsandbytes' CUDA text has it after, its other texts before (bitsandbytes#2010)."""
    grads = np.ones(1)
    update, decayed = np.ones(1), np.ones(1)
    kind([update], lr=0.5, weight_decay=0.0).step([grads])
    kind([decayed], lr=0.5, weight_decay=0.5).step([grads])
    assert decayed == pytest.approx(1 - 0.5 * 0.5 + (update - 1), rel=1e-14)
    assert decayed != pytest.approx((1 - 0.5 * 0.5) * update, rel=1e-3)


# ---- what formats hold


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (gpuadam.Adam, F16),
        (gpuadam.Adam, BF16),
        (gpuadam.RMSprop, BF16),
        (gpuadam.Lion, BF16),
        (gpuadam.Adadelta, BF16),
    ],
)
def test_states_of_16_bit_parameters_are_those_of_float32_ones(kind, dtype):
    """apex' capturable Adam stores them through the parameter's type, optax casts nu to it (optax#1552)."""
    states = []
    for param in (np.ones(300, dtype), np.ones(300, F32)):
        optimizer = kind([param])
        rng = np.random.default_rng(2)
        for _ in range(5):
            optimizer.step([rng.normal(size=300).astype(F32)])
        states.append({key: value for key, value in optimizer.state_dict()["state"][0].items() if np.shape(value)})
    assert states[0].keys() == states[1].keys() != set()
    for name, values in states[0].items():
        assert values.dtype == F32
        assert np.array_equal(values, states[1][name])


@pytest.mark.parametrize("dtype", [F16, BF16])
@pytest.mark.parametrize("master", ["float32", "remainder"])
def test_a_master_keeps_what_16_bits_cannot(dtype, master):
    """apex takes `master_weights=True` for bfloat16 and has none (apex#1728): then 1 - 2^-12 is 1 for ever."""
    param = np.ones(300, dtype)
    if (dtype, master) == (F16, "remainder"):
        with pytest.raises(ValueError, match="bfloat16"):
            gpuadam.SGD([param], lr=2.0**-12, master=master)
        return
    optimizer = gpuadam.SGD([param], lr=2.0**-12, master=master)
    for _ in range(1024):
        optimizer.step([np.ones(300, F32)])
    assert np.all(param == 0.75)


@pytest.mark.parametrize("shape", [(63, 65), (1, 5), (4097,), (16, 256), (5, 1000)])
@pytest.mark.parametrize("dtype", [F16, BF16, F32])
def test_no_state_has_the_dtype_of_its_parameter_because_of_its_size(shape, dtype):
    """torchao's 8-bit states of tensors that are small, or no multiple of a block, are in the parameter's dtype."""
    optimizer = gpuadam.Adam([np.ones(shape, dtype)], state_dtype="int8", int8_from=1000)
    optimizer.step([np.ones(shape, dtype)])
    own = optimizer.state_dict()["state"][0]
    size = int(np.prod(shape))
    has_codes = len(shape) > 1 and size >= 1000
    assert own["exp_avg"].dtype == (np.uint8 if has_codes else F32)
    if has_codes:
        assert own["exp_avg_scale"].shape == (-(-size // 256),)


def test_float16_is_rounded_at_random_too():
    """llm.c leaves that for bfloat16 alone. 64 steps of 2^-14 from 1 are too small for the nearest float16."""
    params = {"nearest": np.ones(100_000, F16), "stochastic": np.ones(100_000, F16)}
    for rounding, param in params.items():
        optimizer = gpuadam.SGD([param], lr=2.0**-14, rounding=rounding)
        for _ in range(64):
            optimizer.step([np.ones(100_000, F16)])
    assert np.all(params["nearest"] == 1)
    assert abs(params["stochastic"].astype(F64).mean() - (1 - 2.0**-8)) < 1e-5
